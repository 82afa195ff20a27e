# coimg only
yes | head -c 256M >a.raw
cp a.raw b.raw
coimg create -q -f qcow2 -o preallocation=metadata big.qcow2 256G
cat >jobs <<'END'
- {id: compare, command: compare -f raw -F raw a.raw b.raw, timeout: 0.001}
- {id: checksum, command: checksum -f raw a.raw, timeout: 0.001}
- {id: check, command: check big.qcow2, timeout: 0.001}
END
coimg batch -k -j 1 jobs | cut -f 1-3
echo "exit code ${PIPESTATUS[0]}"
truncate -s 1T sparse.raw
timeout -s TERM 1 coimg checksum --flat -f raw sparse.raw
echo "exit code $?"
