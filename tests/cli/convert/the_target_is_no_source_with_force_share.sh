# coimg only
yes | head -c 1M >a.raw
ln -s a.raw link
before=$(cksum <a.raw)
coimg convert -U -f raw a.raw ./link
echo "exit code $?"
[ "$before" = "$(cksum <a.raw)" ] && echo "the source is as before"
