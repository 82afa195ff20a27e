# coimg only
# A new file in the place of the old one, for the same people; whoever has the old one open keeps it.
echo old >a
chmod 640 a
exec 3<a
before=$(stat -c %i a)
coimg create -q -f qcow2 a 1M
[ "$before" != "$(stat -c %i a)" ] && echo replaced
stat -c %a a
cat <&3

# What can only be written in place is.
ln -s nowhere dangling
coimg create -q -f raw dangling 1M
readlink dangling
stat -c %s nowhere

echo old >linked
ln linked other
coimg create -q -f raw linked 1M
stat -c '%h %s' other

echo old >named_by_descriptor
exec 4<>named_by_descriptor
coimg create -q -f raw /dev/fd/4 1M
stat -Lc %s /dev/fd/4

(umask 077; coimg create -q -f raw private 1M)
stat -c %a private
coimg create -q -f raw no/such/directory 1M
coimg create -q -f raw .. 1M
ls -A
