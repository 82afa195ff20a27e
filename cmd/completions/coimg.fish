# fish completion for coimg

function __coimg_without_command
    not __fish_seen_subcommand_from bitmap check compare convert create info map snapshot
end

complete -c coimg -n __coimg_without_command -f -a bitmap -d 'Manage dirty bitmaps'
complete -c coimg -n __coimg_without_command -f -a check -d 'Look for damage, and repair it'
complete -c coimg -n __coimg_without_command -f -a compare -d 'Do two images hold the same'
complete -c coimg -n __coimg_without_command -f -a convert -d 'Copy images into a new one'
complete -c coimg -n __coimg_without_command -f -a create -d 'Make a new image'
complete -c coimg -n __coimg_without_command -f -a info -d 'Describe an image'
complete -c coimg -n __coimg_without_command -f -a map -d 'List where its ranges come from'
complete -c coimg -n __coimg_without_command -s V -l version -d 'Show the version'
complete -c coimg -s h -l help -d 'Show help'

set -l formats 'raw qcow2'
set -l caches 'none writeback writethrough directsync unsafe'

complete -c coimg -n '__fish_seen_subcommand_from bitmap check compare convert create info map' -x -s f -a $formats -d 'Image format'
complete -c coimg -n '__fish_seen_subcommand_from check info map' -x -l output -a 'human json' -d 'Form of the report'
complete -c coimg -n '__fish_seen_subcommand_from check compare convert info map snapshot' -s U -d 'Open without locks'
complete -c coimg -n '__fish_seen_subcommand_from bitmap check compare convert info map snapshot' -l image-opts -d 'The operand is an option list'
complete -c coimg -n '__fish_seen_subcommand_from check compare convert create' -s q -d 'Print nothing but errors'
complete -c coimg -n '__fish_seen_subcommand_from compare convert' -s p -d 'Show progress'
complete -c coimg -n '__fish_seen_subcommand_from check compare convert' -x -s T -a $caches -d 'Cache mode'
complete -c coimg -n '__fish_seen_subcommand_from bitmap compare convert create' -x -s F -a $formats -d 'Format of the other image'
complete -c coimg -n '__fish_seen_subcommand_from create convert' -x -s o -d 'Creation options' \
    -a 'backing_file= backing_fmt= cluster_size= compat= compression_type=zlib compression_type=zstd lazy_refcounts= preallocation= refcount_bits= size= help'

complete -c coimg -n '__fish_seen_subcommand_from check' -x -s r -a 'leaks all' -d 'Repair'
complete -c coimg -n '__fish_seen_subcommand_from compare' -s s -d 'Sizes and allocation have to be equal too'
complete -c coimg -n '__fish_seen_subcommand_from create' -r -s b -d 'Backing file'
complete -c coimg -n '__fish_seen_subcommand_from create' -s u -d 'Do not open the backing file'
complete -c coimg -n '__fish_seen_subcommand_from info' -l backing-chain -d 'Describe all images of the chain'
complete -c coimg -n '__fish_seen_subcommand_from map' -x -s s -l start-offset -d 'Where to begin'
complete -c coimg -n '__fish_seen_subcommand_from map' -x -s l -l max-length -d 'How far to go'

complete -c coimg -n '__fish_seen_subcommand_from convert' -x -s O -a $formats -d 'Format of the target'
complete -c coimg -n '__fish_seen_subcommand_from convert' -s c -d 'Compress'
complete -c coimg -n '__fish_seen_subcommand_from convert' -s n -d 'The target exists already'
complete -c coimg -n '__fish_seen_subcommand_from convert' -r -s B -d 'Backing file of the target'
complete -c coimg -n '__fish_seen_subcommand_from convert' -x -s t -a $caches -d 'Cache mode of the target'
complete -c coimg -n '__fish_seen_subcommand_from convert' -x -s S -d 'Shortest run of zeros that becomes a hole'
complete -c coimg -n '__fish_seen_subcommand_from convert' -x -s m -d 'Requests in flight'
complete -c coimg -n '__fish_seen_subcommand_from convert' -x -s r -d 'Bytes a second'
complete -c coimg -n '__fish_seen_subcommand_from convert' -s W -d 'Write in any order'
complete -c coimg -n '__fish_seen_subcommand_from convert' -l salvage -d 'Unreadable sectors become zeros'
complete -c coimg -n '__fish_seen_subcommand_from convert' -l target-is-zero -d 'The target reads as zeros already'
complete -c coimg -n '__fish_seen_subcommand_from convert' -l target-image-opts -d 'The target is an option list'

complete -c coimg -n __coimg_without_command -f -a snapshot -d 'Manage internal snapshots'
complete -c coimg -n '__fish_seen_subcommand_from snapshot' -s l -d 'List them'
complete -c coimg -n '__fish_seen_subcommand_from snapshot' -x -s a -d 'Make the disk what it was'
complete -c coimg -n '__fish_seen_subcommand_from snapshot' -x -s c -d 'Take one'
complete -c coimg -n '__fish_seen_subcommand_from snapshot' -x -s d -d 'Delete one'
complete -c coimg -n '__fish_seen_subcommand_from bitmap' -l add -d 'Add the bitmap'
complete -c coimg -n '__fish_seen_subcommand_from bitmap' -l remove -d 'Remove it'
complete -c coimg -n '__fish_seen_subcommand_from bitmap' -l clear -d 'Nothing has changed'
complete -c coimg -n '__fish_seen_subcommand_from bitmap' -l enable -d 'Record changes'
complete -c coimg -n '__fish_seen_subcommand_from bitmap' -l disable -d 'Stay as it is'
complete -c coimg -n '__fish_seen_subcommand_from bitmap' -x -l merge -d 'Add what another one has'
complete -c coimg -n '__fish_seen_subcommand_from bitmap' -r -s b -l source-file -d 'Image to merge from'
complete -c coimg -n '__fish_seen_subcommand_from bitmap' -x -s g -l granularity -d 'Bytes that a bit stands for'
