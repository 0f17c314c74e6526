# What the demonstration runs inside its container: shows what is so, and says whether it is as config.json asks.
failed=0
show() { # WHAT EXPECTED ACTUAL
	if [ "$2" = "$3" ]; then verdict=ok; else verdict="NOT AS CONFIGURED, expected $2"; failed=1; fi
	printf '  %-34s %-24s %s\n' "$1" "$3" "$verdict"
}
cgroup=/sys/fs/cgroup
show 'hostname' demo "$(hostname)"
show 'process id of the workload' 1 $$
set -- /proc/[0-9]*
show 'processes in sight' 1 $#
show 'network devices' lo "$(ls /sys/class/net | tr '\n' ' ' | sed 's/ $//')"
show 'the loopback device' up "$(ip link show lo | grep -q 'LOOPBACK,UP' && echo up || echo down)"
show 'memory.max' 67108864 "$(cat $cgroup/memory.max)"
show 'pids.max' 32 "$(cat $cgroup/pids.max)"
show 'cpu.max' '50000 100000' "$(cat $cgroup/cpu.max)"
show 'writing to /' 'Read-only file system' "$(touch /x 2>&1 | sed 's/.*: //')"
exit $failed
