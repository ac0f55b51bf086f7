#!/usr/bin/env bash
# Makes available what the tests use besides npm packages: independent NBD clients and servers, an emulator, and a Debian
# kernel to boot in it. As root on Debian it installs what is missing from apt; otherwise it names each missing
# tool and the tests that will not run for it. The kernel package is unpacked below .cache/kernel, never installed.
#
# Exit status: 0; with CI=true it is 1 when anything is missing, since a skipped test proves nothing there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C

# Debian package | how to see that it is there | what is not run without it
readonly tools='
nbd-client      | command nbd-client         | attaching in a real kernel
nbdkit          | command nbdkit             | the check of the kernel harness against an independent server
libnbd-bin      | command nbdcopy            | nbdinfo and nbdcopy against our server
python3-libnbd  | python nbd                 | protocol details seen through libnbd
qemu-utils      | command qemu-io            | qemu-img, qemu-io and qemu-nbd against our server
qemu-system-x86 | command qemu-system-x86_64 | everything in a real kernel
fio             | command fio                | fio against our server
busybox-static  | command busybox            | everything in a real kernel
strace          | command strace             | the order of system calls on the way to stable storage
e2fsprogs       | command mkfs.ext4          | file systems in a real kernel
util-linux      | command fstrim             | TRIM from a real kernel
iproute2        | command ss                 | checks of listening sockets
libisal2        | library libisal.so.2       | the faster of the two native checksums
openssl         | command openssl            | TLS with certificates made on the spot
'
readonly kernel_dir=.cache/kernel

main() {
  local missing=()
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]} > 0)) && may_install; then
    install_packages "${missing[@]}"
    mapfile -t missing < <(missing_packages)
  fi
  local complaints=()
  local package
  for package in "${missing[@]}"; do
    complaints+=("missing: $package (not run: $(purpose "$package"))")
  done
  if ! have_kernel && ! fetch_kernel; then
    complaints+=("missing: the Debian kernel package below $kernel_dir (not run: everything in a real kernel)")
  fi
  if ((${#complaints[@]} == 0)); then
    return 0
  fi
  printf '%s\n' "${complaints[@]}" >&2
  [[ ${CI:-} != true ]]
}

missing_packages() {
  local package how
  while IFS='|' read -r package how _; do
    package=$(trim "$package")
    [[ -n $package ]] || continue
    # shellcheck disable=SC2086 # the words of the check are its arguments
    is_present $how || printf '%s\n' "$package"
  done <<<"$tools"
}

is_present() {
  case $1 in
    command) command -v "$2" >/dev/null ;;
    library) ldconfig -p | grep -qF "$2" ;;
    # The system's Python, which Debian's packages serve, and isolated: a folder of ours with that name is importable too.
    python) /usr/bin/python3 -I -c "import $2" 2>/dev/null ;;
  esac
}

purpose() {
  local package what
  while IFS='|' read -r package _ what; do
    [[ $(trim "$package") == "$1" ]] && trim "$what"
  done <<<"$tools"
  return 0
}

trim() {
  local text=$1
  text=${text#"${text%%[![:space:]]*}"}
  printf '%s' "${text%"${text##*[![:space:]]}"}"
}

may_install() {
  [[ $EUID -eq 0 && -e /etc/debian_version ]] && command -v apt-get >/dev/null
}

# The index is refreshed once per run, and only if something has to be fetched.
updated=false
update_index() {
  $updated && return 0
  updated=true
  apt-get update -qq
}

# Failing is reported by the caller, which looks again at what is there; apt's own messages say why.
install_packages() {
  echo "installing: $*"
  update_index || return 0
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null || true
}

# The directory is moved into place when complete, so its presence is enough.
have_kernel() {
  local image
  for image in "$kernel_dir"/linux-image-*/vmlinuz; do
    [[ -e $image ]] && return 0
  done
  return 1
}

fetch_kernel() {
  [[ $(uname -m) == x86_64 ]] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  if [[ $EUID -eq 0 ]]; then
    update_index || return 1
  fi
  # The meta package depends on the current kernel, whose name carries its version.
  local package
  package=$(apt-cache depends linux-image-amd64 2>/dev/null |
    sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
  [[ -n $package ]] || return 1

  echo "fetching: $package"
  mkdir -p "$kernel_dir"
  local scratch
  scratch=$(mktemp -d "$kernel_dir/unpacking.XXXXXX")
  # shellcheck disable=SC2064 # the path as it is now
  trap "rm -rf '$scratch'" EXIT
  # Apt would rather fetch as its own user, which may not write here, and says so each time.
  (cd "$scratch" && apt-get -qq -o APT::Sandbox::User=root download "$package") || return 1
  unpack_kernel "$scratch" || return 1
  # Another run may have put it there in the meantime; both are the same.
  mv -T "$scratch/kernel" "$kernel_dir/$package" 2>/dev/null || have_kernel
}

# Of 400 MB only the image and the modules a guest may want: kernel/ below one directory, as in the package.
unpack_kernel() {
  local scratch=$1
  mkdir "$scratch/tree" "$scratch/kernel"
  dpkg-deb --fsys-tarfile "$scratch"/*.deb |
    tar -x -C "$scratch/tree" --wildcards './boot/vmlinuz-*' './lib/modules/*/kernel/fs/*' \
      './lib/modules/*/kernel/lib/*' './lib/modules/*/kernel/crypto/*' './lib/modules/*/kernel/net/core/*' \
      './lib/modules/*/kernel/drivers/block/*' './lib/modules/*/kernel/drivers/virtio/*' \
      './lib/modules/*/kernel/drivers/char/virtio_console.ko*' './lib/modules/*/kernel/drivers/net/virtio_net.ko*' \
      './lib/modules/*/kernel/drivers/net/net_failover.ko*' || return 1
  mv "$scratch"/tree/lib/modules/*/kernel "$scratch/kernel/modules" &&
    mv "$scratch"/tree/boot/vmlinuz-* "$scratch/kernel/vmlinuz"
}

main "$@"
