# bash completion for coimg                                                     -*- shell-script -*-

_coimg() {
  local cur prev words cword
  _init_completion -n = || return

  local commands='amend bitmap check checksum commit compare convert create dd info io map measure rebase resize snapshot'
  local command='' word
  for word in "${words[@]:1:cword-1}"; do
    if [[ " $commands " == *" $word "* ]]; then
      command=$word
      break
    fi
  done
  if [[ -z $command ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$commands --help --version --trace" -- "$cur")
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
    -o)
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
      amend) options='-o -f -t -p -q --force --image-opts --object --help' ;;
      bitmap) options='--add --remove --clear --enable --disable --merge -b --source-file -F --source-format -g --granularity -f
        --image-opts --object --help' ;;
      check) options='-q -f -r -T -U --output= --image-opts --object --help' ;;
      checksum) options='-a --algorithm -f -T -p -U --flat --output= --image-opts --object --help' ;;
      commit) options='-f -b -d -r -t -p -q --image-opts --object --help' ;;
      compare) options='-f -F -T -p -q -s -U --image-opts --object --help' ;;
      convert) options='-f -F -O -B -b -c -C -l -m -n -o -p -q -r -S -t -T -U -W --compression-level --salvage --target-is-zero --verify --image-opts
        --target-image-opts --bitmaps --skip-broken-bitmaps --object --help' ;;
      create) options='-q -f -b -F -u -o --object --help' ;;
      dd) options='-f -O -U --image-opts --object --help' ;;
      info) options='-f -U --output= --backing-chain --image-opts --object --help' ;;
      io) options='-c --cmd -f -r --read-only -s --snapshot -n --nocache -C --copy-on-read -m --misalign -k --native-aio -i --aio
        -t --cache -d --discard -U --image-opts --object --help' ;;
      map) options='-f -U -s -l --output= --start-offset= --max-length= --image-opts --object --help' ;;
      measure) options='-f -O -o -l -U --size --output= --image-opts --object --help' ;;
      rebase) options='-b -F -u -f -t -T -p -q -U --image-opts --object --help' ;;
      resize) options='-f -q --shrink --preallocation= --image-opts --object --help' ;;
      snapshot) options='-l -a -c -d -q -U --image-opts --object --help' ;;
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
