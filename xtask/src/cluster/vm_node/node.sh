#!/bin/sh
# The node in a virtual machine: network, sshd for the host, containerd, kubelet and kube-proxy.
# /run/node has its settings; `env` among them sets NAME, ADDRESS, ADDRESS6, GATEWAYS and ROUTES.
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
cd /run/node
. ./env
log=/var/log/node
mkdir -p $log

# An answer for whoever waits on the console.
failed() {
  echo "##kfault-failed $*"
  exit 1
}

# Starts a daemon. Its log is on the console when it ends.
daemon() {
  name=$1
  shift
  ( "$@" >"$log/$name.log" 2>&1
    tail -n 20 "$log/$name.log"
    failed "$name ended" ) &
}

mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
echo "$NAME" >/proc/sys/kernel/hostname
echo "$ADDRESS $NAME" >>/etc/hosts
# Stock systems have the file /dev/net/tun before anybody asks for it.
for module in virtio_net overlay veth tun; do modprobe $module || failed "modprobe $module"; done
ip link set lo up
tries=0
until [ -e /sys/class/net/eth0 ]; do
  tries=$((tries + 1))
  [ $tries -lt 200 ] || failed "no eth0"
  sleep 0.05
done
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
# Nobody else has these addresses: they are used at once.
for device in default eth0; do echo 0 >/proc/sys/net/ipv6/conf/$device/accept_dad; done
ip address add "$ADDRESS/24" dev eth0
ip address add "$ADDRESS6/64" dev eth0
ip link set eth0 up
for gateway in $GATEWAYS; do ip route add default via "$gateway"; done
for route in $ROUTES; do ip route add "${route%@*}" via "${route#*@}"; done

mkdir -p -m 700 /root/.ssh
cp authorized_keys /root/.ssh/authorized_keys
chmod 600 /root/.ssh/authorized_keys
daemon dropbear dropbear -F -E -s -R -p "$ADDRESS:22"

ln -s /usr/lib/cni/* plugins/
daemon containerd containerd --config /run/node/containerd.toml
tries=0
until ctr version >/dev/null 2>&1; do
  tries=$((tries + 1))
  [ $tries -lt 300 ] || failed "containerd does not answer"
  sleep 0.2
done
echo "containerd answers at $(cut -d' ' -f1 /proc/uptime) s"
for image in images/*.tar; do
  ctr --namespace k8s.io images import "$image" >>"$log/images.log" 2>&1 || failed "import $image"
done
daemon kubelet hyperkube kubelet --config=/run/node/kubelet.yaml \
  --kubeconfig=/run/node/kubelet.kubeconfig --hostname-override="$NAME" \
  --node-ip="$ADDRESS,$ADDRESS6"
daemon kube-proxy hyperkube kube-proxy --config=/run/node/kube-proxy.yaml
echo "started at $(cut -d' ' -f1 /proc/uptime) s"
wait
