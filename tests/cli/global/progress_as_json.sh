# coimg only
# Lines come at most four times a second, and the last one says that all is done; -p draws nothing then.
yes | head -c 8M >a.raw
for try in 1 2 3 4 5; do  # a machine that has much else to do may be late with all but the last
  coimg --progress=json convert -p -f raw -O qcow2 -r 4M a.raw a.qcow2 2>lines
  [ "$(wc -l <lines)" -lt 3 ] || break
done
sed -e 's/"rate": [0-9]*/"rate": N/' lines | tail -n 1
[ "$(wc -l <lines)" -ge 3 ] || echo "too few lines: $(cat lines)"
[ "$(wc -l <lines)" -le 10 ] || echo "too many lines: $(cat lines)"
grep -vE '^\{"type": "progress", "command": "convert", "done": [0-9]+, "total": 8388608, "percent": [0-9]+\.[0-9]{2}, "rate": [0-9]+\}$' lines
[ "$(grep -c '"percent": 100.00' lines)" = 1 ] || echo "not one last line"
truncate -s 0 empty.raw
for command in 'compare -q -f raw a.raw a.qcow2' 'compare -f raw -F raw empty.raw empty.raw' 'amend -q -o compat=0.10 a.qcow2'; do
  coimg --progress=json $command 2>&1 | sed -e 's/"rate": [0-9]*/"rate": N/' -e 's/"\(done\|total\)": [1-9][0-9]*/"\1": N/g'
done
coimg --progress=json compare -f raw -F raw a.raw none.raw
coimg --progress=on info a.raw
qemu-img --progress=json info a.raw
