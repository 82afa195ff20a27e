# bash completion for coimg                                                     -*- shell-script -*-

_coimg() {
  local cur prev words cword
  _init_completion -n = || return

  local commands='amend batch bench bitmap check checksum commit compare convert create dd info io map measure rebase resize snapshot'
  local command='' word
  for word in "${words[@]:1:cword-1}"; do
    if [[ " $commands " == *" $word "* ]]; then
      command=$word
      break
    fi
  done
  if [[ -z $command ]]; then
    if [[ $prev == --log-format || $prev == --progress ]]; then
      mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$cur")
      return
    fi
    mapfile -t COMPREPLY < <(compgen -W "$commands --help --version --trace --log-format --progress --untrusted" -- "$cur")
    return
  fi

  case $prev in
    -f | -F | -O | --format)
      mapfile -t COMPREPLY < <(compgen -W 'raw qcow2 add-cow' -- "$cur")
      return
      ;;
    -a | --algorithm)
      if [[ $command == checksum ]]; then
        mapfile -t COMPREPLY < <(compgen -W 'sha256 blake2b xxh3' -- "$cur")
        return
      fi
      ;;
    -t | -T)
      mapfile -t COMPREPLY < <(compgen -W 'none writeback writethrough directsync unsafe' -- "$cur")
      return
      ;;
    -r)
      if [[ $command == check ]]; then
        mapfile -t COMPREPLY < <(compgen -W 'leaks all' -- "$cur")
        return
      fi
      ;;
    --repair)
      mapfile -t COMPREPLY < <(compgen -W 'leaks all' -- "$cur")
      return
      ;;
    -i | --aio)
      mapfile -t COMPREPLY < <(compgen -W 'threads native io_uring' -- "$cur")
      return
      ;;
    -o)
      [[ $command == bench ]] && return
      mapfile -t COMPREPLY < <(compgen -W 'backing_file= backing_fmt= cluster_size= compat= compression_type=zlib
        compression_type=zstd lazy_refcounts= preallocation= refcount_bits= size= help' -- "$cur")
      compopt -o nospace
      return
      ;;
  esac
  case $cur in
    --preallocation=*)
      mapfile -t COMPREPLY < <(compgen -W 'off metadata falloc full' -- "${cur#--preallocation=}")
      return
      ;;
    --output=*)
      mapfile -t COMPREPLY < <(compgen -W 'human json' -- "${cur#--output=}")
      return
      ;;
  esac

  if [[ $cur == -* ]]; then
    local options
    case $command in
      amend) options='-f --image-opts --object -o -t -p -q --force -h --help' ;;
      batch) options='-j --jobs -r --rate-limit --retries -k --keep-going --state --resume -n --dry-run --output= -h --help' ;;
      bench) options='-f --image-opts -U --force-share --object -c -d --flush-interval --no-drain --pattern -o -s -S -w -t
        -i -n -q -h --help' ;;
      bitmap) options='-f --image-opts --object --add --remove --clear --enable --disable --merge -b --source-file -F
        --source-format -g --granularity -h --help' ;;
      check) options='-f --format --image-opts -U --force-share --object -q --output= -T -r --repair -h --help' ;;
      checksum) options='-f --image-opts -U --force-share --object -a --algorithm --flat --output= -T -p -h --help' ;;
      commit) options='-f --image-opts --object -b -d -r -t -p -q -h --help' ;;
      compare) options='-f --image-opts -U --force-share --object -F -T -p -q -s -h --help' ;;
      convert) options='-f --image-opts -U --force-share --object -o -O -B -b -F -t -T -l -S -r -m --compression-level -c -C
        -n -p -q -W --salvage --verify --bitmaps --skip-broken-bitmaps --target-is-zero --target-image-opts -h --help' ;;
      create) options='-q -f -b -F -u -o --object -h --help' ;;
      dd) options='-f --image-opts -U --force-share --object -O -h --help' ;;
      info) options='-f --format --image-opts -U --force-share --object --output= --backing-chain -h --help' ;;
      io) options='-f --format --image-opts -U --force-share --object -c --cmd -r --read-only -m --misalign -s
        --snapshot -n --nocache -C --copy-on-read -k --native-aio -i --aio -t --cache -d --discard -h --help' ;;
      map) options='-f --format --image-opts -U --force-share --object --output= -s --start-offset -l --max-length -h
        --help' ;;
      measure) options='-f --image-opts -U --force-share --object -l -o -O --size --detect-zeroes --output= -h --help' ;;
      rebase) options='-f --image-opts -U --force-share --object -b -F -u -t -T -p -q -h --help' ;;
      resize) options='-f --image-opts --object --preallocation= -q --shrink -h --help' ;;
      snapshot) options='--image-opts -U --force-share --object -q -l -a -c -d -h --help' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    [[ ${COMPREPLY[*]} == *= ]] && compopt -o nospace
    return
  fi
  if [[ $command == dd ]]; then
    case $cur in
      if=* | of=*)
        cur=${cur#*=}
        _filedir
        return
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W 'if= of= bs= count= skip=' -- "$cur")
    compopt -o nospace
    return
  fi
  _filedir
}
complete -F _coimg coimg
