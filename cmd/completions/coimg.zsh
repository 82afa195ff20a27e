#compdef coimg

local -a commands formats caches
commands=(
  'amend:change creation options'
  'bitmap:manage dirty bitmaps'
  'check:verify the metadata of an image, and repair it'
  'checksum:print a digest of what an image holds'
  'commit:move what an overlay holds into its backing file'
  'compare:tell whether two images hold the same'
  'convert:copy images into a new one of another format'
  'create:make a new image'
  'dd:copy a part of an image, zeros included'
  'info:describe an image'
  'io:run I/O commands on an image'
  'map:list where the ranges of an image come from'
  'measure:tell how large a new image will become'
  'rebase:give an image another backing file'
  'resize:change the size of an image'
  'snapshot:manage internal snapshots'
)
formats=(raw qcow2 add-cow)
caches=(none writeback writethrough directsync unsafe)

_arguments -C '(- *)'{-h,--help}'[show help]' '(- *)'{-V,--version}'[show the version]' '1:command:->command' '*::argument:->argument'
case $state in
  command) _describe command commands ;;
  argument)
    local -a common
    common=('--image-opts[operands are option strings]' '*--object[define an object]:object:' '(-f --format)'{-f,--format}'[format]:format:($formats)')
    case $words[1] in
      bitmap) _arguments $common '*--add[add the bitmap]' '*--remove[remove it]' '*--clear[nothing has changed]' '*--enable[record changes]' '*--disable[stay as it is]' '*--merge[add what another one has]:bitmap:' '(-b --source-file)'{-b,--source-file}'[image to merge from]:file:_files' '(-F --source-format)'{-F,--source-format}'[its format]:format:($formats)' '(-g --granularity)'{-g,--granularity}'[bytes a bit]:bytes:' '1:image:_files' '2:bitmap:' ;;
      check) _arguments $common '-q[no report]' '(-r --repair)'{-r,--repair}'[repair]:what:(leaks all)' '-T[cache mode]:mode:($caches)' '-U[no locks]' '--output=[form]:form:(human json)' '*:image:_files' ;;
      checksum) _arguments $common '(-a --algorithm)'{-a,--algorithm}'[algorithm]:name:(sha256 blake2b xxh3)' '--flat[all bytes in a row, as sha256sum]' '--output=[form]:form:(human json)' '-T[cache mode]:mode:($caches)' '-p[progress]' '-U[no locks]' '*:image:_files' ;;
      commit) _arguments $common '-b[base]:file:_files' '-d[keep the overlay]' '-r[rate limit]:rate:' '-t[cache mode]:mode:($caches)' '-p[progress]' '-q[quiet]' '*:image:_files' ;;
      compare) _arguments $common '-F[second format]:format:($formats)' '-T[cache mode]:mode:($caches)' '-p[progress]' '-q[quiet]' '-s[strict]' '-U[no locks]' '*:image:_files' ;;
      convert) _arguments $common '-O[target format]:format:($formats)' '-o[options]:options:' '-c[compress]' '-n[target exists]' '-p[progress]' '-q[quiet]' '-m[requests in flight]:number:' '-W[out of order]' '-S[sparse size]:size:' '-B[backing file]:file:_files' '-F[backing format]:format:($formats)' '-r[rate limit]:rate:' '-t[target cache mode]:mode:($caches)' '-T[source cache mode]:mode:($caches)' '-U[no locks]' '--compression-level=[1 (fast) to 19 (small)]:level:' '--salvage[read what can be read]' '--target-is-zero[target reads as zeros]' '--verify[read the target back]' '*:image:_files' ;;
      create) _arguments '-q[quiet]' '-f[format]:format:($formats)' '-b[backing file]:file:_files' '-F[backing format]:format:($formats)' '-u[do not open the backing file]' '-o[options]:options:' '*:image:_files' ;;
      dd) _arguments $common '-O[output format]:format:($formats)' '-U[no locks]' '*:operand:(if= of= bs= count= skip=)' ;;
      info) _arguments $common '-U[no locks]' '--output=[form]:form:(human json)' '--backing-chain[all images of the chain]' '*:image:_files' ;;
      measure) _arguments $common '-O[format of the new image]:format:($formats)' '-o[options]:options:' '--size[size of an empty disk]:size:' '-l[snapshot]:snapshot:' '--output=[form]:form:(human json)' '-U[no locks]' '*:image:_files' ;;
      amend) _arguments $common '-o[what to change]:options:' '-t[cache mode]:mode:($caches)' '-p[progress]' '-q[quiet]' '--force[allow changes that may lock you out]' '*:image:_files' ;;
      rebase) _arguments $common '-b[new backing file]:file:_files' '-F[its format]:format:($formats)' '-u[only store the name]' '-t[cache mode]:mode:($caches)' '-T[cache mode of the backing files]:mode:($caches)' '-p[progress]' '-q[quiet]' '-U[no locks on the new backing file]' '*:image:_files' ;;
      resize) _arguments $common '--preallocation=[new space]:mode:(off metadata falloc full)' '-q[quiet]' '--shrink[allow it to become smaller]' '*:image:_files' ;;
      snapshot) _arguments '-l[list]' '-a[apply]:snapshot:' '-c[take]:name:' '-d[delete]:name:' '-q[quiet]' '-U[no locks]' '--image-opts[the operand is an option list]' '*:image:_files' ;;
      io) _arguments $common '*'{-c,--cmd}'[run this command]:command:' '(-r --read-only)'{-r,--read-only}'[not for writing]' '(-s --snapshot)'{-s,--snapshot}'[temporary overlay]' '(-n --nocache)'{-n,--nocache}'[around the page cache]' '(-C --copy-on-read)'{-C,--copy-on-read}'[keep what is read]' '(-m --misalign)'{-m,--misalign}'[memory not aligned]' '(-k --native-aio)'{-k,--native-aio}'[native AIO]' '(-i --aio)'{-i,--aio}'[engine]:aio:(threads native io_uring)' '(-t --cache)'{-t,--cache}'[cache mode]:mode:(none writeback writethrough directsync unsafe)' '(-d --discard)'{-d,--discard}'[discards]:discard:(unmap ignore)' '-U[no locks]' '*:image:_files' ;;
      map) _arguments $common '-U[no locks]' '--output=[form]:form:(human json)' '(-s --start-offset)'{-s,--start-offset}'[first byte]:offset:' '(-l --max-length)'{-l,--max-length}'[length]:bytes:' '*:image:_files' ;;
    esac
    ;;
esac
