#!/usr/bin/env bash
# The completions of all shells know every command and each command's options, and none that is not there.
# usage: completions_match_help.sh COIMG [SOURCES]
set -euo pipefail
coimg=$(readlink -f "${1:?usage: completions_match_help.sh COIMG [SOURCES]}")
sources=${2:-$(dirname "$(readlink -f "$0")")/../..}
completions=$sources/cmd/completions
fail=0

# compare SHELL COMMAND LEFT RIGHT: what the program has, and what the completion offers.
compare() {
  local word
  for word in $(comm -23 <(echo "$3") <(echo "$4")); do echo "$1, $2: $word is missing" && fail=1; done
  for word in $(comm -13 <(echo "$3") <(echo "$4")); do echo "$1, $2: there is no $word" && fail=1; done
}
words() { grep -v '^$' | sort -u; }

options_in_help() {
  "$coimg" "$1" --help | grep -oE '^ +-[^ ].*' | grep -oE '^ +-{1,2}[A-Za-z-]+(,-{1,2}[A-Za-z-]+)*' | tr ', ' '\n\n' |
    words
}

# What bash would offer for a line whose last word is being typed. The package bash-completion need not be there.
# shellcheck disable=SC2317 # these are called by the completion
offered_by_bash() {
  _init_completion() { cur=${words[cword]} prev=${words[cword - 1]}; }
  compopt() { :; }
  local -a words=("$@")
  local cword=$(($# - 1)) COMPREPLY=()
  # shellcheck source=cmd/completions/coimg.bash
  . "$completions/coimg.bash"
  eval "$(declare -f _coimg | sed 's/local cur prev words cword;/local cur prev;/')"
  _coimg
  printf '%s\n' "${COMPREPLY[@]}" | sed 's/=$//' | words
}
# The lines for one command.
offered_by_zsh() {
  awk -v command="$1" '/^      [a-z]+\)$/ {on = $1 == command ")"; next} /^        ;;/ {on = 0} on' "$completions/coimg.zsh" |
    sed -E "s/^ *'?[*]?(\([^)]*\))?'?//" | grep -oE '^\{[^}]*\}|^--?[A-Za-z-]+' | tr '{},' '\n' | sed 's/=$//' | words
}
offered_by_fish() {
  grep -E "^complete -c coimg -n '__fish_seen_subcommand_from $1' " "$completions/coimg.fish" | sed "s/ -d '.*//; s/ -a '.*//" |
    grep -oE -- ' -[sl] [A-Za-z-]+' | sed -e 's/ -s /-/' -e 's/ -l /--/' | words
}

commands=$("$coimg" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' | sort)
compare bash commands "$commands" "$(offered_by_bash coimg '' | grep -v '^-')"
compare zsh commands "$commands" "$(sed -n "/^commands=/,/^)/s/^  '\([a-z]*\):.*/\1/p" "$completions/coimg.zsh" | words)"
compare fish commands "$commands" \
  "$(sed -nE 's/^complete -c coimg -n __coimg_without_command -f -a ([a-z]+) .*/\1/p' "$completions/coimg.fish" | words)"
compare fish "the list of commands" "$commands" \
  "$(sed -n 's/^    not __fish_seen_subcommand_from //p' "$completions/coimg.fish" | tr ' ' '\n' | words)"
global_options=$("$coimg" --help | sed '/^Commands:/,$d' | grep -oE -- '--[a-z-]+' | words)
compare bash "the global options" "$global_options" "$(offered_by_bash coimg -)"
compare zsh "the global options" "$global_options" \
  "$(sed -n '/^_arguments -C/,/:->command/p' "$completions/coimg.zsh" | grep -oE -- '--[a-z-]+' | words)"
compare fish "the global options" "$global_options" \
  "$(sed -nE 's/^complete -c coimg -n __coimg_without_command .*-l ([a-z-]+) .*/--\1/p' "$completions/coimg.fish" | words)"
for command in $commands; do
  in_help=$(options_in_help "$command")
  compare bash "$command" "$in_help" "$(offered_by_bash coimg "$command" -)"
  compare zsh "$command" "$in_help" "$(offered_by_zsh "$command")"
  compare fish "$command" "$in_help" "$(offered_by_fish "$command")"
done
if command -v fish >/dev/null; then
  fish --no-execute "$completions/coimg.fish" || fail=1
  fish --no-config -c "source $completions/coimg.fish; complete -C 'coimg check --out'" | grep -q '^--output' ||
    { echo "fish does not complete coimg check --out"; fail=1; }
fi
if command -v zsh >/dev/null; then zsh -n "$completions/coimg.zsh" || fail=1; fi
exit "$fail"
