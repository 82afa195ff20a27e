# coimg only
# The file there is written in place.
mkdir d
echo old >d/a
before=$(stat -c %i d/a)
run="setpriv --reuid=65534 --clear-groups"
if [ "$(id -u)" -eq 0 ] && $run true 2>/dev/null; then
  chmod 666 d/a
  chmod 755 . d
else
  run=
  chmod 555 d
fi
$run coimg create -q -f qcow2 d/a 1M || echo "exit code $?"
$run coimg create -q -f qcow2 d/b 1M 2>/dev/null || echo "exit code $?"
[ "$before" = "$(stat -c %i d/a)" ] && coimg info d/a | grep '^file format'
ls -A d
chmod 755 d
