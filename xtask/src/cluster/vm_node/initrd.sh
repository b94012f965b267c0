#!/bin/sh
# First process of the node in a virtual machine: the root disk, the settings on the second disk,
# and then systemd, which is told to run nothing but the node. The marker tells the host that the
# kernel got here.
PATH=/bin
mount -t devtmpfs dev /dev
echo '##kfault-init' >/dev/console
insmod /virtio_blk.ko
while [ ! -b /dev/vda ] || [ ! -b /dev/vdb ]; do sleep 0.05; done
mount -t ext4 -o noatime /dev/vda /root
mount -t tmpfs -o mode=755 tmpfs /root/run
mkdir -p /root/run/node /root/run/systemd/system
tar -C /root/run/node -xf /dev/vdb
cp /root/run/node/node.service /root/run/node/node.target /root/run/systemd/system
mount --move /dev /root/dev
exec switch_root /root /usr/lib/systemd/systemd --unit=node.target --show-status=no
