# Two images of equal content, so that all of it is looked at.
# shellcheck shell=bash
need mix.raw mix.qcow2 root.raw root.zlib.qcow2
heading compare
cat mix.raw mix.qcow2 root.raw root.zlib.qcow2 >/dev/null # page cache warm
both 1 'raw, qcow2' compare -f raw -F qcow2 mix.raw mix.qcow2
both 1 'raw, compressed' compare -f raw -F qcow2 root.raw root.zlib.qcow2
