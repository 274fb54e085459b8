//! seccomp: the system calls of a process that runs sandboxes, and no others.
//!
//! Whoever adds a system call to this library adds it here, with its reason, and a test that makes
//! it inside a jail (`tests/tests/e2e/jail.rs`): without it, the call ends the process.
//!
//! There are two filters, because one has only two answers. The kernel asks both and takes the
//! harder answer: [`allowed`] lets calls pass or ends the process; [`refused`] makes some of those
//! that pass fail with `ENOSYS`. For calls that pass whatever their arguments the kernel asks
//! neither: it remembers them (Linux 5.11).

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::Jail;

/// Waiting, time, memory, threads, signals, and what is done with open files: what every mode of
/// waking and the runtime take, whatever the policy.
const ALWAYS: &[c_long] = &[
    // Waiting.
    libc::SYS_futex,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // Time, where reading it takes a call.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_time,
    // Memory; `mmap` and `mprotect` are below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads and signals; `clone` and `tgkill` are below.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // What the process is and has.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getcwd,
    libc::SYS_getcpu,
    libc::SYS_getrusage,
    libc::SYS_sched_getaffinity,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrandom,
    // Files: which can be opened is for Landlock to say. Guests and devices are opened without
    // regard to the policy, and the C library looks for its settings. musl uses the older calls.
    libc::SYS_openat,
    libc::SYS_open,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_fstat,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    // Open files, sockets and pipes, among them the standard streams. Sending is below.
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    // Memory of templates: a file without a name, which is written once.
    libc::SYS_memfd_create,
    libc::SYS_pwrite64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
];

/// Reading granted directories, besides.
const READ_DIRS: &[c_long] = &[libc::SYS_openat2, libc::SYS_preadv2, libc::SYS_getdents64];

/// Changing what is in granted directories, besides.
const CHANGE_DIRS: &[c_long] = &[
    libc::SYS_pwritev2,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_mkdirat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_utimensat,
];

/// Control calls. Those of KVM are numbered as in `linux/kvm.h`; the first is made most often and is
/// looked for first.
const CONTROLS: &[u64] = &[
    0xAE80,        // KVM_RUN
    0x4004_AE86,   // KVM_INTERRUPT
    0xAE00,        // KVM_GET_API_VERSION
    0xAE01,        // KVM_CREATE_VM
    0xAE03,        // KVM_CHECK_EXTENSION
    0xAE04,        // KVM_GET_VCPU_MMAP_SIZE
    0xC008_AE05,   // KVM_GET_SUPPORTED_CPUID
    0xAE41,        // KVM_CREATE_VCPU
    0x4020_AE46,   // KVM_SET_USER_MEMORY_REGION
    0x8090_AE81,   // KVM_GET_REGS
    0x4090_AE82,   // KVM_SET_REGS
    0x8138_AE83,   // KVM_GET_SREGS
    0x4138_AE84,   // KVM_SET_SREGS
    0x4008_AE90,   // KVM_SET_CPUID2
    0x9000_AEA4,   // KVM_GET_XSAVE
    0xAEA3,        // KVM_GET_TSC_KHZ
    0x4188_AEA7,   // KVM_SET_XCRS
    0x4004_AE8B,   // KVM_SET_SIGNAL_MASK
    0x4018_AEE1,   // KVM_SET_DEVICE_ATTR
    0x4018_AEE2,   // KVM_GET_DEVICE_ATTR
    0xC008_AE88,   // KVM_GET_MSRS
    0x4008_AE89,   // KVM_SET_MSRS
    0x8004_AE98,   // KVM_GET_MP_STATE
    0x4004_AE99,   // KVM_SET_MP_STATE
    0x8040_AE9F,   // KVM_GET_VCPU_EVENTS
    0x4040_AEA0,   // KVM_SET_VCPU_EVENTS
    0x8080_AEA1,   // KVM_GET_DEBUGREGS
    0x4080_AEA2,   // KVM_SET_DEBUGREGS
    0x5000_AEA5,   // KVM_SET_XSAVE
    0x8188_AEA6,   // KVM_GET_XCRS
    0xC060_6610,   // PAGEMAP_SCAN
    libc::TCGETS,  // is it a terminal?
    libc::TCGETS2, // the same in newer C libraries
    libc::FIONBIO,
    libc::FIONREAD, // how the resolver sizes its buffer
    libc::FIOCLEX,
];

/// Those of programs that draw on a terminal: its size, and setting its modes.
const TERMINAL_CONTROLS: &[u64] = &[
    libc::TIOCGWINSZ,
    libc::TCSETS,
    libc::TCSETSW,
    libc::TCSETSF,
    libc::TCSETS2,
    libc::TCSETSW2,
    libc::TCSETSF2,
];

/// What may be asked of open files.
const FILE_CONTROLS: &[libc::c_int] = &[
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_ADD_SEALS,
    libc::F_GET_SEALS,
];

/// Settings of sockets, by level: the guest's own, and those by which the resolver learns of errors.
const SOCKET_SETTINGS: &[(libc::c_int, &[libc::c_int])] = &[
    (
        libc::SOL_SOCKET,
        &[libc::SO_REUSEADDR, libc::SO_KEEPALIVE, libc::SO_BROADCAST],
    ),
    (
        libc::IPPROTO_TCP,
        &[libc::TCP_NODELAY, libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL],
    ),
    (libc::IPPROTO_IP, &[libc::IP_RECVERR, libc::IP_MTU_DISCOVER]),
    (
        libc::IPPROTO_IPV6,
        &[
            libc::IPV6_V6ONLY,
            libc::IPV6_RECVERR,
            libc::IPV6_MTU_DISCOVER,
        ],
    ),
];

/// The part of a socket's type that is not a flag.
const TYPE_MASK: u64 = 0xF;

/// Flags of `clone` that make something else than a thread of this process in the same namespaces.
const CLONE_OTHER: libc::c_int = libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS
    | libc::CLONE_PTRACE
    | libc::CLONE_UNTRACED
    | libc::CLONE_VFORK;

/// From `linux/prctl.h`: gives memory a name, as some allocators do.
const PR_SET_VMA: u64 = 0x5356_4D41;

/// From `linux/prctl.h`: the process's own auxiliary vector, where the crate `rustix` looks for the
/// vDSO when a clock is read for the first time.
const PR_GET_AUXV: u64 = 0x4155_5856;

/// Installs both filters on all threads.
///
/// # Errors
///
/// What the kernel says.
pub(super) fn install(jail: &Jail) -> Result<(), seccompiler::Error> {
    let programs = [refused(jail)?, allowed(jail)?];
    for program in &programs {
        seccompiler::apply_filter_all_threads(program)?;
    }
    Ok(())
}

/// Ends the process at what is not on the list.
fn allowed(jail: &Jail) -> Result<BpfProgram, BackendError> {
    let mut rules = Rules::default();
    rules.all(ALWAYS);
    for request in CONTROLS {
        rules.some(libc::SYS_ioctl, [is(1, *request)])?;
    }
    if jail.terminal {
        for request in TERMINAL_CONTROLS {
            rules.some(libc::SYS_ioctl, [is(1, *request)])?;
        }
    }
    for command in FILE_CONTROLS {
        rules.some(libc::SYS_fcntl, [is(1, number(*command))])?;
    }
    // All of them: `refused` looks at what they would make executable.
    rules.all(&[libc::SYS_mmap, libc::SYS_mprotect]);
    // A thread. What `clone3` is told lies in memory, where no filter sees it: `refused` has it, and
    // the C library takes `clone` instead.
    rules.all(&[libc::SYS_clone3]);
    let thread = number(libc::CLONE_THREAD);
    rules.some(
        libc::SYS_clone,
        [masked(0, thread | number(CLONE_OTHER), thread)],
    )?;
    // Interrupting guests, and aborting: this process only.
    let own = u64::from(std::process::id());
    rules.some(libc::SYS_tgkill, [is(0, own)])?;
    for option in [libc::PR_SET_NAME as u64, PR_SET_VMA, PR_GET_AUXV] {
        rules.some(libc::SYS_prctl, [is(0, option)])?;
    }
    // Reading a limit, as starting a thread does; not setting one.
    rules.some(libc::SYS_prlimit64, [is(0, 0), pointer(2, 0)])?;
    // A panic's backtrace asks for the program's path.
    rules.all(&[libc::SYS_readlink, libc::SYS_readlinkat]);
    if !jail.policy.dirs().is_empty() || !jail.write.is_empty() || !jail.read.is_empty() {
        rules.all(READ_DIRS);
    }
    if jail.policy.has_writable_dirs() || !jail.write.is_empty() {
        rules.all(CHANGE_DIRS);
    }
    sockets(jail, &mut rules)?;
    // Whatever it was above, it is whole now.
    for call in &jail.calls {
        rules.0.insert(*call, Vec::new());
    }
    rules.compile(SeccompAction::KillProcess, SeccompAction::Allow)
}

/// Sockets, as far as the policy needs them.
fn sockets(jail: &Jail, rules: &mut Rules) -> Result<(), BackendError> {
    let policy = &jail.policy;
    let unix = number(libc::AF_UNIX);
    // How Tokio hears of signals. A pair of datagram sockets could send to any path, see `sending`.
    let pair = [is(0, unix), kind(libc::SOCK_STREAM), is(2, 0)];
    rules.some(libc::SYS_socketpair, pair)?;
    rules.some(libc::SYS_getsockopt, [is(1, number(libc::SOL_SOCKET))])?;
    let names = policy.has_names();
    let connects = !policy.connect_ports().is_none();
    let listens = !policy.listen_ports().is_empty();
    // Names are asked for by datagrams, or by TCP if an answer is long.
    let tcp = connects || listens || names;
    let udp = policy.has_udp() || names;
    for family in [libc::AF_INET, libc::AF_INET6] {
        for (wanted, type_, protocol) in [
            (tcp, libc::SOCK_STREAM, libc::IPPROTO_TCP),
            (udp, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        ] {
            for protocol in [0, protocol].into_iter().filter(|_| wanted) {
                let protocol = is(2, number(protocol));
                let socket = [is(0, number(family)), kind(type_), protocol];
                rules.some(libc::SYS_socket, socket)?;
            }
        }
    }
    if !policy.unix().is_empty() {
        let socket = [is(0, unix), kind(libc::SOCK_STREAM), is(2, 0)];
        rules.some(libc::SYS_socket, socket)?;
    }
    if names {
        for family in probed(jail) {
            rules.some(libc::SYS_socket, [is(0, number(family))])?;
        }
        rules.all(&[libc::SYS_recvmsg, libc::SYS_recvmmsg]);
    }
    sending(rules, udp, names)?;
    if connects || udp || !policy.unix().is_empty() {
        rules.all(&[libc::SYS_connect]);
    }
    if listens || udp {
        rules.all(&[libc::SYS_bind]);
    }
    if listens {
        rules.all(&[libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4]);
    }
    if tcp || udp {
        for (level, names) in SOCKET_SETTINGS {
            for name in *names {
                let setting = [is(1, number(*level)), is(2, number(*name))];
                rules.some(libc::SYS_setsockopt, setting)?;
            }
        }
    }
    Ok(())
}

/// Sending, which must neither connect nor choose where to.
///
/// Landlock looks at `connect` and `bind`. These get past it:
///
/// * `MSG_FASTOPEN` connects a TCP socket to the address beside it, to any port.
/// * An address beside a datagram leads a Unix socket to any path (which Landlock holds for
///   abstract names alone). A filter does not see into addresses, so there is none, unless the
///   policy grants datagrams; no Unix socket of theirs can be made in either case.
/// * `sendmsg` has its address in memory, where no filter sees it, and nothing here needs it. The
///   resolver's `sendmmsg` is there when names are, and datagrams with them.
///
/// Other ways to connect are closed by not being on a list: `io_uring_setup`, and the settings
/// `TCP_FASTOPEN_CONNECT`, `TCP_REPAIR` and `TCP_ULP` of a socket.
fn sending(rules: &mut Rules, udp: bool, names: bool) -> Result<(), BackendError> {
    let no_connect = |argument| masked(argument, number(libc::MSG_FASTOPEN), 0);
    if udp {
        rules.some(libc::SYS_sendto, [no_connect(3)])?;
    } else {
        rules.some(libc::SYS_sendto, [no_connect(3), pointer(4, 0)])?;
    }
    if names {
        rules.some(libc::SYS_sendmmsg, [no_connect(3)])?;
    }
    Ok(())
}

/// Families of sockets that the resolver tries and can do without: the C library's cache daemon,
/// and the kernel's answers about its addresses. [`allowed`] lets them pass and [`refused`] has them
/// fail. Where the policy grants Unix sockets, those of its kind are made, and no others.
fn probed(jail: &Jail) -> impl Iterator<Item = libc::c_int> {
    let unix = jail.policy.unix().is_empty().then_some(libc::AF_UNIX);
    unix.into_iter().chain([libc::AF_NETLINK])
}

/// Lets calls fail that libraries try and can do without.
fn refused(jail: &Jail) -> Result<BpfProgram, BackendError> {
    let mut rules = Rules::default();
    rules.all(&[libc::SYS_clone3, libc::SYS_readlink]);
    // In directories, and on the way to Unix sockets, links are read.
    if jail.policy.dirs().is_empty() {
        rules.all(&[libc::SYS_readlinkat]);
    }
    // The resolver loads modules for services that are named in `nsswitch.conf`.
    let executable = number(libc::PROT_EXEC);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.some(call, [masked(2, executable, executable)])?;
    }
    if jail.policy.has_names() {
        for family in probed(jail) {
            rules.some(libc::SYS_socket, [is(0, number(family))])?;
        }
    }
    for call in &jail.calls {
        rules.0.remove(call);
    }
    rules.compile(
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
    )
}

/// Calls, each with the conditions under which it matches: any of them, or none for always.
#[derive(Default)]
struct Rules(BTreeMap<c_long, Vec<SeccompRule>>);

/// A condition for an argument.
type Condition = Result<SeccompCondition, BackendError>;

impl Rules {
    /// These calls, whatever their arguments.
    fn all(&mut self, calls: &[c_long]) {
        self.0.extend(calls.iter().map(|call| (*call, Vec::new())));
    }

    /// A call, if all these conditions hold, or those of another such rule.
    fn some<const N: usize>(
        &mut self,
        call: c_long,
        conditions: [Condition; N],
    ) -> Result<(), BackendError> {
        let conditions = conditions.into_iter().collect::<Result<_, _>>()?;
        let rules = self.0.entry(call).or_default();
        rules.push(SeccompRule::new(conditions)?);
        Ok(())
    }

    fn compile(
        self,
        otherwise: SeccompAction,
        matching: SeccompAction,
    ) -> Result<BpfProgram, BackendError> {
        SeccompFilter::new(self.0, otherwise, matching, TargetArch::x86_64)?.try_into()
    }
}

/// An argument of 32 bits: the kernel looks at no more of it.
fn is(argument: u8, value: u64) -> Condition {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

/// Some bits of an argument of 32 bits.
fn masked(argument: u8, mask: u64, value: u64) -> Condition {
    let op = SeccompCmpOp::MaskedEq(mask);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
}

/// The type of a socket, with whatever flags.
fn kind(constant: libc::c_int) -> Condition {
    masked(1, TYPE_MASK, number(constant))
}

/// An argument of 64 bits.
fn pointer(argument: u8, value: u64) -> Condition {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)
}

/// A C constant's 32 bits.
fn number(constant: libc::c_int) -> u64 {
    constant.cast_unsigned().into()
}
