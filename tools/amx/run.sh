#!/bin/sh
# Runs sd-kernels' tests on AMX instructions, on a processor that Bochs emulates. README.md says what it needs.
#
# usage: tools/amx/run.sh [name of tests...]
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${AMX_DIR:-$root/target/amx}
tests=${*:-selection linear attention conv}
bochs=$work/bochs-3.0/bochs
mkdir -p "$work"
cd "$work"

archive=bochs_3.0+dfsg.orig.tar.xz
sum=78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b
if ! [ -x "$bochs" ]; then
    [ -e $archive ] || apt-get source -qq --download-only bochs
    echo "$sum  $archive" | sha256sum --quiet -c
    rm -rf bochs-3.0
    tar xf $archive
    (
        cd bochs-3.0
        "$here/edit-bochs.sh"
        ./configure --with-nogui --enable-x86-64 --enable-cpu-level=6 --enable-avx --enable-evex --enable-amx \
            --enable-cet --enable-uintr --enable-protection-keys --enable-perfmon --enable-memtype --enable-pci \
            --enable-cdrom --enable-repeat-speedups --enable-fast-function-calls --enable-handlers-chaining \
            --enable-a20-pin --enable-fpu --enable-vmx=2 --disable-docbook
        make -j"$(nproc)" bochs
    ) >build.log 2>&1 || { tail build.log; exit 1; }
fi

if [ -z "${KERNEL:-}" ]; then
    if ! ls kernel/boot/vmlinuz-* >/dev/null 2>&1; then
        package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -n 1)
        apt-get download -q "$package"
        dpkg-deb -x "$package"_*.deb kernel
    fi
    KERNEL=$(ls kernel/boot/vmlinuz-*)
fi

# The guest: busybox, the tests' binaries and the libraries that they load.
rm -rf guest iso
mkdir -p guest/bin guest/proc guest/sys guest/dev guest/tmp iso
cp "$(command -v busybox)" guest/bin/busybox
if [ -z "${GUEST:-}" ]; then
    built=$(cd "$root" && cargo test --release -p sd-kernels --lib --test suite --no-run 2>&1)
    FILES=
    for binary in $(echo "$built" | sed -n 's/.*Executable .*(\(.*\))/\1/p'); do
        FILES="$FILES $binary"
        case $binary in */suite-*) suite=$binary ;; *) unit=$binary ;; esac
    done
    [ -n "${suite:-}" ] && [ -n "${unit:-}" ] || { echo "$built"; exit 1; }
    GUEST="/${unit##*/} --test-threads=1 || failed=1
        for tests in $tests; do /${suite##*/} --test-threads=1 \$tests || failed=1; done"
fi
for file in ${FILES:-}; do
    case $file in /*) ;; *) file=$root/$file ;; esac
    cp "$file" guest/
    for library in $(ldd "$file" | grep -o '/[^ ]*'); do
        mkdir -p "guest${library%/*}"
        cp -L "$library" "guest$library"
    done
done
cat >guest/init <<EOF
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
cd /tmp
export PROPTEST_CASES=${PROPTEST_CASES:-1} SD_KERNELS=${SD_KERNELS-amx} HOME=/tmp
[ "\$SD_KERNELS" ] || unset SD_KERNELS
dmesg | grep 'Supporting XSAVE.*AMX'
failed=0
{ $GUEST
} 2>&1
echo "failed: \$failed"
sleep 4 # the serial line is slow
poweroff -f
EOF
chmod +x guest/init
(cd guest && find . | cpio --quiet -o -H newc | gzip -1) >iso/initrd.gz
cp "$KERNEL" iso/linux
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 iso/
# Bochs cannot leave system management mode with five levels of page tables.
cat >iso/isolinux.cfg <<EOF
default linux
label linux
 kernel /linux
 append initrd=/initrd.gz console=ttyS0 panic=-1 nokaslr no5lvl mitigations=off loglevel=4 ${APPEND:-}
EOF
genisoimage -quiet -o boot.iso -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table iso

cat >bochsrc <<EOF
config_interface: textconfig
display_library: nogui
cpu: model=sapphire_rapids, count=1, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=1024, host=1024
romimage: file=/usr/share/bochs/BIOS-bochs-latest, options=fastboot
vgaromimage: file=/usr/share/vgabios/vgabios.bin
pci: enabled=1, chipset=i440fx
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
log: bochs.log
panic: action=fatal
com1: enabled=1, mode=file, dev=serial.txt
clock: sync=none
EOF
rm -f serial.txt
timeout "${TIMEOUT:-1800}" "$bochs" -q -f bochsrc >screen.txt 2>&1 </dev/null || true # Also a power-off is an "error".
[ -e serial.txt ] || { tail -n 20 screen.txt; exit 1; }
tr -d '\r' <serial.txt
grep -q '^failed: 0' serial.txt
