# coimg only
# Nothing is copied for a name that does not fit.
head -c 1M /dev/zero | tr '\0' x >base.raw
i=$(head -c 200 /dev/zero | tr '\0' i)
mkdir -p $i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i
coimg create -q -f add-cow -b base.raw -F raw \
  -o image_file=$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/../$i/disk.img,cluster_size=4k disk.add-cow
b=$(head -c 240 /dev/zero | tr '\0' b)
mkdir -p $b/$b/$b
head -c 1M /dev/zero | tr '\0' z >$b/$b/$b/$b
sha256sum disk.add-cow >before
coimg rebase -b $b/$b/$b/$b -F raw disk.add-cow 2>&1 | tr -d b
coimg rebase -b $b/$b/$b/$b -F raw -u disk.add-cow 2>&1 | tr -d b
sha256sum -c before
stat -c '%b blocks' $i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/$i/disk.img
