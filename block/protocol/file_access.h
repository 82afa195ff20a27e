// Who may use a file, for a new file that is to replace it.
#pragma once

namespace coimg {

/// Gives the file `to`, a fresh one of ours, the owner, the mode, the access list and the other extended attributes
/// (security labels) of the file `from`. False: not all of it could be given; then `to` is not to be used. Blocks.
bool copy_file_access(int from, int to);

}  // namespace coimg
