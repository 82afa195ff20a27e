# coimg only: qemu-io waits for ever
coimg create -q -f qcow2 a.qcow2 1M
coimg io -f qcow2 -c 'wait_break A' blkdebug::a.qcow2
echo "exit $?"
coimg io -f qcow2 -c 'break write_aio A' -c 'aio_write -q 0 512' -c aio_flush blkdebug::a.qcow2
echo "exit $?"
coimg io -f qcow2 -c 'read -q -P 0xcd 0 512' a.qcow2
