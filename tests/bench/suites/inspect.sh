# Commands that look at metadata. Those of a few milliseconds, which is mostly how long a program takes to start, run
# several times in one timing; the table shows one run.
# shellcheck shell=bash
need large.qcow2 large_snapshot.qcow2 metadata fragmented.qcow2 empty.qcow2 chain.9.qcow2
heading inspect
both 1 'check, 512 GiB' check large.qcow2
theirs=(dd if=metadata of=/dev/null bs=64k status=none)
ours=("$coimg" check large.qcow2)
side_by_side "$pairs" 1 'check, dd of as many bytes'
both 1 'check, 512 GiB, a snapshot' check large_snapshot.qcow2
both 1 'map, 512 GiB' map --output=json large.qcow2
both 10 'map, fragmented' map --output=json fragmented.qcow2
both 1 'measure, 512 GiB' measure -O qcow2 large.qcow2
both 50 'info, 1 TiB, empty' info empty.qcow2
both 50 'check, 1 TiB, empty' check empty.qcow2
both 50 'map, 1 TiB, empty' map --output=json empty.qcow2
both 50 'measure, 1 TiB, empty' measure -O qcow2 empty.qcow2
both 20 'convert, 1 TiB, empty' convert -O qcow2 empty.qcow2 OUT
both 50 'info, a chain of 9' info --backing-chain chain.9.qcow2
both 50 'map, a chain of 9' map --output=json chain.9.qcow2
both 10 'convert, a chain of 9' convert -O qcow2 chain.9.qcow2 OUT
both 50 'create' create -q -f qcow2 OUT 1T
both 50 'create -f raw' create -q -f raw OUT 1T
