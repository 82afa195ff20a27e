#!/usr/bin/env bash
# The .deb that cpack makes holds the program, its manual pages and its completions, and the program runs from there:
# installs.sh BUILD_DIRECTORY
set -eu
build=$(readlink -f "${1:?usage: installs.sh BUILD_DIRECTORY}")
command -v dpkg-deb >/dev/null || { echo "SKIP: not a Debian or Ubuntu system"; exit 77; }
command -v dpkg-shlibdeps >/dev/null && command -v file >/dev/null || { echo "SKIP: needs dpkg-dev and file"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

cpack --config "$build/CPackConfig.cmake" -G DEB -B "$work/made" >cpack.log 2>&1 || { cat cpack.log; exit 1; }
deb=$(find "$work/made" -maxdepth 1 -name '*.deb')
[ -n "$deb" ] || { echo "no .deb was made"; cat cpack.log; exit 1; }

# As an installation does it, but into a directory, with a database of packages of its own.
mkdir -p root/var/lib/dpkg/{info,updates}
touch root/var/lib/dpkg/status
if [ "$(id -u)" -eq 0 ]; then
  dpkg --root="$work/root" --force-depends --path-include='/usr/share/*' --install "$deb" >install.log 2>&1 ||
    { cat install.log; exit 1; }
else
  dpkg-deb --extract "$deb" root
fi

failed=0
pages=$("$build/coimg" --help | sed -n '/^Commands:/,/^$/s|^  \([a-z]*\) .*|usr/share/man/man1/coimg-\1.1|p')
for file in usr/bin/coimg usr/share/man/man1/coimg.1 $pages usr/share/man/man5/add-cow.5 \
  usr/share/bash-completion/completions/coimg usr/share/zsh/vendor-completions/_coimg usr/share/fish/vendor_completions.d/coimg.fish; do
  [ -s "root/$file" ] || { echo "missing: /$file"; failed=1; }
done
if [ -e root/usr/include ] || [ -e root/usr/lib ]; then echo "the package holds the runtime as a library"; failed=1; fi
root/usr/bin/coimg create -q -f qcow2 image.qcow2 1M
root/usr/bin/coimg check -q image.qcow2
grep -q '^\.Sh DIFFERENCES' root/usr/share/man/man1/coimg.1 || { echo "not the manual page"; failed=1; }
if ! readelf -d root/usr/bin/coimg | grep -q 'NEEDED.*libfmt' && ldd root/usr/bin/coimg | grep -q libstdc++; then
  echo "the program has a C++ runtime of its own, and loads another one"
  failed=1
fi
depends=$(dpkg-deb --field "$deb" Depends)
case $depends in
  *libc6*) ;;
  *) echo "the package names no dependencies: '$depends'"; failed=1 ;;
esac
exit "$failed"
