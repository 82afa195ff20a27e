# coimg only
# `script` gives a command a terminal.
on_terminal() { TERM=xterm script -qec "$1" /dev/null </dev/null | tr -d '\r' | cat -v; }
printf '%s\n' '- {id: makes, command: create -q -f qcow2 a.qcow2 1M}' '- {id: reads, command: info none, after: [makes]}' >jobs
on_terminal 'coimg info none'
on_terminal 'NO_COLOR=1 coimg info none'
on_terminal 'TERM=dumb coimg info none'
on_terminal 'qemu-img info none'
on_terminal 'coimg batch --jobs 1 jobs' | sed -E 's/ +[0-9]+\.[0-9]{2}/ SECONDS/'
coimg info none 2>&1 | cat -v
printf '\0\0\0\0' | dd of=a.qcow2 bs=1 seek=$((0x20000)) conv=notrunc status=none
on_terminal 'coimg check a.qcow2'
