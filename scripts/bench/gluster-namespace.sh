#!/bin/sh
# A GlusterFS volume of two replicas and a qemu-storage-daemon that exports a file of it, for gluster.ts, which runs this
# in network, mount and process namespaces of its own: all that it makes ends with it. GlusterFS refuses loopback
# addresses, so both bricks are at one end of a veth pair. Its state, which has fixed places, is hidden below fresh tmpfs.
#
# Arguments: directory for bricks and socket, size of the image in bytes.
set -eu
directory=$1 size=$2
address=198.18.0.1 # RFC 2544: for benchmarks

ip link set lo up
ip link add bench0 type veth peer name bench1
ip addr add "$address/24" dev bench0
ip link set bench0 up
ip link set bench1 up
for place in /run /var/lib/glusterd /var/log/glusterfs; do
  mkdir -p "$place"
  mount -t tmpfs none "$place"
done
mkdir -p /run/gluster "$directory/brick1" "$directory/brick2"

glusterd
attempts=0
until gluster --mode=script volume info >/dev/null 2>&1; do
  attempts=$((attempts + 1))
  [ "$attempts" -lt 300 ] || {
    echo 'glusterd does not answer' >&2
    exit 1
  }
  sleep 0.1
done
gluster --mode=script volume create bench replica 2 "$address:$directory/brick1" "$address:$directory/brick2" force >&2
gluster --mode=script volume start bench >&2
qemu-img create -q -f raw "gluster://$address/bench/data.img" "$size" >&2
exec qemu-storage-daemon \
  --blockdev "driver=gluster,node-name=file,volume=bench,path=data.img,server.0.type=inet,server.0.host=$address,server.0.port=24007" \
  --nbd-server "addr.type=unix,addr.path=$directory/nbd.sock" \
  --export type=nbd,id=export,node-name=file,name=bench,writable=on \
  --chardev stdio,id=stdio --monitor chardev=stdio
