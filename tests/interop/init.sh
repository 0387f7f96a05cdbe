#!/bin/busybox sh
# The only process of the virtual machine: loads the modules, does the jobs of /jobs, writes the
# outcome of each to the second serial port, and turns the machine off.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin DM_DISABLE_UDEV=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module" || echo "luksmith: $module does not load"; done </modules/order

# The disk at a SCSI target, which may appear after a moment.
disk() {
    tries=0
    while [ $tries -lt 100 ]; do
        for block in /sys/class/scsi_device/*:0:"$1":0/device/block/*; do
            [ -b "/dev/${block##*/}" ] && echo "/dev/${block##*/}" && return
        done
        tries=$((tries + 1))
        usleep 100000
    done
    echo "/dev/absent-$1"
}

# job NUMBER read|write|map IMAGE HEADER|- PAYLOAD|-
# To map is to read through a device that luksmith makes and that cryptsetup knows as its own.
# If there is a file for it in /open, the volume is not closed at the end.
# If there is a file of options for luksFormat, the volume is made first. If there is a file of
# options for a plain device, that device is opened, and the key is dm-crypt's own.
job() {
    set -- "$@" "$(disk "$3")"
    options=
    [ "$4" = - ] || options="--header $(disk "$4")"
    if [ -f "/make/$1" ] && ! said=$(cryptsetup luksFormat --batch-mode $(cat "/make/$1") $options --key-file "/keys/$1" "$6" 2>&1); then
        echo "job $1 refused $(echo $said)"
        return
    fi
    kind="--type luks"
    [ -f "/plain/$1" ] && kind="--type plain $(cat "/plain/$1")"
    [ "$2" = read ] && options="$options --readonly"
    if [ "$2" = map ]; then
        said=$(luksmith dm-table $options --key-file "/keys/$1" "$6" --create "v$1" --read-only 2>&1) &&
            said=$(cryptsetup status $options "v$1" 2>&1) && said=$(echo "$said" | grep -q "type: *LUKS" || echo "$said") &&
            said=$said$(grep cryptsetup: /proc/keys)
        if [ -n "$said" ]; then
            echo "job $1 refused $(echo $said)"
            return
        fi
    elif ! said=$(cryptsetup open $kind --disable-keyring $options --key-file "/keys/$1" "$6" "v$1" 2>&1); then
        echo "job $1 refused $(echo $said)"
        return
    fi
    said=
    if [ "$2" = write ]; then
        said=$(dd if="$(disk "$5")" of="/dev/mapper/v$1" bs=1M conv=fsync 2>&1) && said=
        blockdev --flushbufs "/dev/mapper/v$1"
    fi
    if [ -n "$said" ]; then
        echo "job $1 refused $(echo $said)"
    else
        echo "job $1 opened $(blockdev --getsize64 "/dev/mapper/v$1") $(sha256sum <"/dev/mapper/v$1" | cut -c1-64)"
    fi
    [ -f "/open/$1" ] || cryptsetup close "v$1"
}

. /jobs >/dev/ttyS1
echo done >/dev/ttyS1
sync
poweroff -f
