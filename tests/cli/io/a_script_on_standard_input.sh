# coimg only: the prompt has its name
coimg create -q -f raw a.raw 1M
printf 'write -q -P 7 0 512\nread -q -P 7 0 512\nlength\nquit\nlength\n' | coimg io -f raw a.raw
echo " exit $?"
