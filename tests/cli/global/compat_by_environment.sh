# coimg only
# COIMG_COMPAT has the effect of a link with that name.
export COIMG_COMPAT=qemu-img
coimg --version | head -1 | cut -d ' ' -f 1-3
coimg info nofile
coimg convert -b x a b
coimg create x 0x2k
coimg check --help | grep -c '^  check '
coimg bench --object secret,id=s,data=x nofile
COIMG_COMPAT=qemu-io coimg -f raw -c length -c bogus x
COIMG_COMPAT=something coimg info
COIMG_COMPAT= coimg info
