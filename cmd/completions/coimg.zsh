#compdef coimg

local -a commands formats caches
commands=(
  'amend:change creation options of an image'
  'batch:run many commands, in an order that they allow'
  'bench:time many equal requests to an image'
  'bitmap:manage the dirty bitmaps of an image'
  'check:check the consistency of an image'
  'checksum:print a digest of what a guest sees in an image'
  'commit:move what an overlay holds into its backing file'
  'compare:compare the contents of two images'
  'convert:copy images into another one, in any format'
  'create:create an image'
  'dd:copy a part of an image, zeros included'
  'info:show what an image is'
  'io:run I/O commands on an image'
  'map:show where the data of an image is'
  'measure:tell how large a new image will become'
  'rebase:give an image another backing file'
  'resize:change the size of an image'
  'snapshot:manage the internal snapshots of an image'
)
formats=(raw qcow2 add-cow)
caches=(none writeback writethrough directsync unsafe)

_arguments -C '(- *)'{-h,--help}'[show help]' '(- *)'{-V,--version}'[show the version]' {-T,--trace}'[trace to stderr]:level:(trace debug info)' \
  '--log-format[how messages are written]:format:(text json)' '--progress[progress as JSON on stderr]:format:(text json)' \
  '--untrusted[images are hostile]' \
  '1:command:->command' '*::argument:->argument'
case $state in
  command) _describe command commands ;;
  argument)
    case $words[1] in
      amend)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '-f[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '*--object=[define an object, such as a secret]:object:' \
          '*-o[creation options]:options:' \
          '-t[cache mode of the image]:cache mode:($caches)' \
          '-p[show progress]' \
          '-q[print nothing but errors]' \
          '--force[allow changes that may lock you out of an encrypted image]' \
          '*:image:_files'
        ;;
      batch)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '(-j --jobs)'{-j,--jobs=}'[how many run at once]:n:' \
          '(-r --rate-limit)'{-r,--rate-limit=}'[bytes a second that all together write]:rate:' \
          '--retries=[how often a job that fails is run again]:n:' \
          '(-k --keep-going)'{-k,--keep-going}'[go on after a failure]' \
          '--state=[remember in this file what was done]:file:_files' \
          '--resume[leave out what was done]' \
          '(-n --dry-run)'{-n,--dry-run}'[only show what would be run]' \
          '--output=[how it is shown]:format:(human json)' \
          '*:jobs:_files'
        ;;
      bench)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '-f[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '(-U --force-share)'{-U,--force-share}'[open without locks]' \
          '*--object=[define an object, such as a secret]:object:' \
          '-c[requests in all]:n:' \
          '-d[requests in flight]:n:' \
          '--flush-interval=[flush every N requests]:n:' \
          '--no-drain[do not wait for the requests in flight before a flush]' \
          '--pattern=[the byte to write]:byte:' \
          '-o[where the first request begins]:bytes:' \
          '-s[size of a request]:bytes:' \
          '-S[from one request to the next]:bytes:' \
          '-w[write]' \
          '-t[cache mode]:cache mode:($caches)' \
          '-i[how files are read and written]:engine:(threads native io_uring)' \
          '-n[the same as -i native]' \
          '-q[accepted]' \
          '*:image:_files'
        ;;
      bitmap)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '-f[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '*--object=[define an object, such as a secret]:object:' \
          '*--add[add the bitmap]' \
          '*--remove[remove the bitmap]' \
          '*--clear[make the bitmap say that nothing has changed]' \
          '*--enable[let the bitmap record changes]' \
          '*--disable[let the bitmap stay as it is]' \
          '*--merge=[add what another bitmap has recorded]:source:' \
          '(-b --source-file)'{-b,--source-file=}'[take the sources of --merge from this image]:file:_files' \
          '(-F --source-format)'{-F,--source-format=}'[format of that image]:format:($formats)' \
          '(-g --granularity)'{-g,--granularity=}'[bytes that one bit of an added bitmap stands for]:bytes:' \
          '1:image:_files' '2:bitmap:'
        ;;
      check)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '(-f --format)'{-f,--format=}'[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '(-U --force-share)'{-U,--force-share}'[open without locks]' \
          '*--object=[define an object, such as a secret]:object:' \
          '-q[print no report]' \
          '--output=[form of the report]:form:(human json)' \
          '-T[cache mode]:cache mode:($caches)' \
          '(-r --repair)'{-r,--repair=}'[repair leaked clusters, or everything that can be repaired]:what:(leaks all)' \
          '*:image:_files'
        ;;
      checksum)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '-f[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '(-U --force-share)'{-U,--force-share}'[open without locks]' \
          '*--object=[define an object, such as a secret]:object:' \
          '(-a --algorithm)'{-a,--algorithm=}'[algorithm]:name:(sha256 blake2b xxh3)' \
          '--flat[digest all bytes in a row, as sha256sum does]' \
          '--output=[form of the report]:form:(human json)' \
          '-T[cache mode]:cache mode:($caches)' \
          '-p[show progress]' \
          '*:image:_files'
        ;;
      commit)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '-f[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '*--object=[define an object, such as a secret]:object:' \
          '-b[the image of the chain that takes it, as the overlay would name it]:base:_files' \
          '-d[do not empty the overlay afterwards]' \
          '-r[write no more than this a second]:bytes:' \
          '-t[cache mode]:cache mode:($caches)' \
          '-p[show progress]' \
          '-q[print nothing but errors]' \
          '*:image:_files'
        ;;
      compare)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '-f[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '(-U --force-share)'{-U,--force-share}'[open without locks]' \
          '*--object=[define an object, such as a secret]:object:' \
          '-F[format of the second image]:format:($formats)' \
          '-T[cache mode of both]:cache mode:($caches)' \
          '-p[show progress]' \
          '-q[print nothing but errors]' \
          '-s[sizes and allocation have to be the same too]' \
          '*:image:_files'
        ;;
      convert)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '-f[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '(-U --force-share)'{-U,--force-share}'[open without locks]' \
          '*--object=[define an object, such as a secret]:object:' \
          '*-o[creation options]:options:' \
          '-O[format of the target]:format:($formats)' \
          '(-B -b)'{-B,-b}'[the target is an overlay of this file]:backing:_files' \
          '-F[format of the targets backing file]:format:($formats)' \
          '-t[cache mode of the target]:cache mode:($caches)' \
          '-T[cache mode of the sources]:cache mode:($caches)' \
          '-l[read an internal snapshot]:snapshot:' \
          '-S[zero runs of at least this become holes]:bytes:' \
          '-r[write no more than this a second]:bytes:' \
          '-m[requests in flight, 1 to 16]:n:' \
          '--compression-level=[1 (fast) to 19 (small)]:n:' \
          '-c[write compressed clusters]' \
          '-C[let the host copy where it can]' \
          '-n[do not create the target]' \
          '-p[show progress]' \
          '-q[print nothing but errors]' \
          '-W[allow writes out of order]' \
          '--verify[read the target back and compare it with the sources]' \
          '--salvage[go on after read errors]' \
          '--bitmaps[copy the persistent bitmaps too]' \
          '--skip-broken-bitmaps[leave inconsistent ones out]' \
          '--target-is-zero[the target reads as zeros now]' \
          '--target-image-opts[the target is driver options]' \
          '*:image:_files'
        ;;
      create)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '-q[print nothing but errors]' \
          '-f[format of the new image]:format:($formats)' \
          '-b[the image is an overlay of this file]:backing:_files' \
          '-F[format of the backing file]:format:($formats)' \
          '-u[do not open the backing file]' \
          '*-o[creation options]:options:' \
          '*--object=[define an object, such as a secret]:object:' \
          '*:image:_files'
        ;;
      dd)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '-f[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '(-U --force-share)'{-U,--force-share}'[open without locks]' \
          '*--object=[define an object, such as a secret]:object:' \
          '-O[format of the output]:format:($formats)' \
          '*:operand:(if= of= bs= count= skip=)'
        ;;
      info)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '(-f --format)'{-f,--format=}'[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '(-U --force-share)'{-U,--force-share}'[open without locks]' \
          '*--object=[define an object, such as a secret]:object:' \
          '--output=[form of the report]:form:(human json)' \
          '--backing-chain[show the backing files too, down to the last one]' \
          '*:image:_files'
        ;;
      io)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '(-f --format)'{-f,--format=}'[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '(-U --force-share)'{-U,--force-share}'[open without locks]' \
          '*--object=[define an object, such as a secret]:object:' \
          '*'{-c,--cmd=}'[run this command]:command:' \
          '(-r --read-only)'{-r,--read-only}'[do not open the image for writing]' \
          '(-m --misalign)'{-m,--misalign}'[use memory that is not aligned]' \
          '(-s --snapshot)'{-s,--snapshot}'[write to a temporary overlay]' \
          '(-n --nocache)'{-n,--nocache}'[go around the page cache, the same as -t none]' \
          '(-C --copy-on-read)'{-C,--copy-on-read}'[keep in the image what is read from its backing file]' \
          '(-k --native-aio)'{-k,--native-aio}'[the same as -i native]' \
          '(-i --aio)'{-i,--aio=}'[how files are read and written]:engine:(threads native io_uring)' \
          '(-t --cache)'{-t,--cache=}'[cache mode]:cache mode:($caches)' \
          '(-d --discard)'{-d,--discard=}'[what becomes of discards]:discard:(unmap ignore)' \
          '*:image:_files'
        ;;
      map)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '(-f --format)'{-f,--format=}'[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '(-U --force-share)'{-U,--force-share}'[open without locks]' \
          '*--object=[define an object, such as a secret]:object:' \
          '--output=[form of the report]:form:(human json)' \
          '(-s --start-offset)'{-s,--start-offset=}'[start at this position]:bytes:' \
          '(-l --max-length)'{-l,--max-length=}'[look at no more than this]:bytes:' \
          '*:image:_files'
        ;;
      measure)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '-f[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '(-U --force-share)'{-U,--force-share}'[open without locks]' \
          '*--object=[define an object, such as a secret]:object:' \
          '-l[read an internal snapshot]:snapshot:' \
          '*-o[creation options]:options:' \
          '-O[format of the new image]:format:($formats)' \
          '--size=[the new image is for an empty disk of this size]:bytes:' \
          '--detect-zeroes[read the data, and leave out their zeros]' \
          '--output=[form of the report]:form:(human json)' \
          '*:image:_files'
        ;;
      rebase)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '-f[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '(-U --force-share)'{-U,--force-share}'[open without locks]' \
          '*--object=[define an object, such as a secret]:object:' \
          '-b[the new backing file]:backing:_files' \
          '-F[format of the new backing file]:format:($formats)' \
          '-u[only store the new name]' \
          '-t[cache mode of the image]:cache mode:($caches)' \
          '-T[cache mode of the backing files]:cache mode:($caches)' \
          '-p[show progress]' \
          '-q[print nothing but errors]' \
          '*:image:_files'
        ;;
      resize)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '-f[format of the image]:format:($formats)' \
          '--image-opts[image operands are driver options, not names]' \
          '*--object=[define an object, such as a secret]:object:' \
          '--preallocation=[what becomes of new space]:mode:(off metadata falloc full)' \
          '-q[print nothing but errors]' \
          '--shrink[allow the image to become smaller]' \
          '*:image:_files'
        ;;
      snapshot)
        _arguments -s \
          '(- *)'{-h,--help}'[show the options]' \
          '--image-opts[image operands are driver options, not names]' \
          '(-U --force-share)'{-U,--force-share}'[open without locks]' \
          '*--object=[define an object, such as a secret]:object:' \
          '-q[print nothing but errors]' \
          '-l[list the snapshots]' \
          '-a[make the disk what it was then]:snapshot:' \
          '-c[take a snapshot]:name:' \
          '-d[delete a snapshot]:name:' \
          '*:image:_files'
        ;;
    esac
    ;;
esac
