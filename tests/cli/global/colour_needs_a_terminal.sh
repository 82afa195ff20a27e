# coimg only
# Nothing that is not a terminal gets escape sequences, whatever the environment says; progress is of carriage returns.
export TERM=xterm-256color CLICOLOR_FORCE=1 FORCE_COLOR=1 COLORTERM=truecolor
escape=$(printf '\033')
{
  coimg
  coimg --help
  coimg info nofile
  coimg info --bogus
  coimg create -f qcow2 a.qcow2 1M
  coimg create a.raw 1M
  coimg resize a.raw 2M
  coimg convert -p -O raw a.qcow2 b.raw
  coimg check a.qcow2
  COIMG_LOG=debug coimg check a.qcow2
  coimg compare a.qcow2 b.raw
  echo help | coimg io a.qcow2
} >printed 2>&1
test -s printed && ! grep -q "$escape" printed && echo none
