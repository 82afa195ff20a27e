# coimg only
# The image must not become descriptor 1 and take what is printed.
coimg create a.raw 1M >&-
echo "exit code $?"
od -An -c a.raw | head -2
