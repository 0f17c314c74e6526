//! `runtime update`: changes the limits of running containers.

use super::Action;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration as Length;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags};
use serde_json::{Value, json};

use super::Context;
use super::list::Format;
use super::table::table;
use crate::bundle::input;
use crate::bundle::input::Pipes;
use crate::cgroup::Source;
use crate::cgroup::change::{Change, shown};
use crate::cli::bytes;
use crate::cli::duration::Duration;
use crate::container::ContainerId;
use crate::error::printable;
use crate::host::signals::SignalQueue;
use crate::revision;
use crate::revision::{ContainerRef, Event, Loss, Made, Requester, Roll, Wanted};

/// Update resource limits of one or more containers
///
/// Limits that are not given stay unchanged, as do those set to 0 or "", except --pids-limit 0 (which means 1), --cpu-burst 0 and
/// --cpu-idle 0. Updates are atomic: every limit is applied, or none is. Each update creates a revision; see history and rollback.
///
/// With more than one ID, or with --settle, this is a rolling update: containers are updated in batches of --step, and each batch
/// is watched for the time given by --settle. If an update fails, or a container exits, has a process OOM-killed or stalls on
/// memory or block I/O, or on Ctrl-C, all updated containers that are still running are rolled back and the exit status is 1.
/// Progress is printed line by line.
#[derive(Debug, clap::Args)]
pub struct Update {
    /// Read limits from FILE, or from standard input if -, as JSON in the form of linux.resources; other
    /// limit options except those for Intel RDT are then ignored
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Block I/O weight, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// CPU period for --cpu-quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// CPU time allowed per period, in microseconds; -1 is unlimited
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_quota: Option<i64>,
    /// Unused CPU quota that may accumulate, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,
    /// CPU shares (relative weight), 2 to 262144
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// Ignored: cgroup v2 has no realtime limits
    #[arg(long, value_name = "MICROSECONDS", hide = true)]
    cpu_rt_period: Option<u64>,
    /// Ignored: cgroup v2 has no realtime limits
    #[arg(long, value_name = "MICROSECONDS", hide = true)]
    cpu_rt_runtime: Option<i64>,
    /// Set to 1 to run only when a CPU is otherwise idle, 0 for normal scheduling
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    /// CPUs to use, e.g. 0-2,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use, e.g. 0,1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Ignored: kernel memory counts as memory
    #[arg(long, value_name = "BYTES", value_parser = bytes, hide = true)]
    kernel_memory: Option<i64>,
    /// Ignored: kernel memory counts as memory
    #[arg(long, value_name = "BYTES", value_parser = bytes, hide = true)]
    kernel_memory_tcp: Option<i64>,
    /// Memory limit, with optional suffix k, m, g, t or p (powers of 1024), e.g. 1.5g; -1 is unlimited
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<i64>,
    /// Memory reservation (soft limit), reclaimed last
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory_reservation: Option<i64>,
    /// Total limit of memory plus swap; -1 is unlimited
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory_swap: Option<i64>,
    /// Limit on processes and threads; -1 is unlimited
    #[arg(long, value_name = "NUMBER")]
    pids_limit: Option<i64>,
    /// Intel RDT schema for L3 cache allocation
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Intel RDT schema for memory bandwidth allocation
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// Print the changes without applying them
    #[arg(long)]
    dry_run: bool,
    /// Rolling update: number of containers updated at a time [default: 1]
    #[arg(long, value_name = "NUMBER")]
    step: Option<NonZeroUsize>,
    /// Rolling update: how long to watch updated containers, e.g. 5s or 1m30s [default with more than one ID: 5s]
    #[arg(long, value_name = "DURATION")]
    settle: Option<Duration>,
    /// Rolling update: maximum memory or I/O pressure (PSI full avg10), in percent [default: 20]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    max_pressure: Option<u8>,
    /// Output format of --dry-run and rolling updates: table or json [default: table]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Container IDs
    #[arg(value_name = "ID", required = true, num_args = 1..)]
    ids: Vec<ContainerId>,
}

/// Defaults of a rolling update. A container that does nothing but wait for memory exceeds this pressure
/// after three seconds.
const SETTLE: Duration = Duration(Length::from_secs(5));
const MAX_PRESSURE: u8 = 20;

fn bytes(text: &str) -> Result<i64> {
    bytes::parse(text)
        .ok_or_else(|| anyhow!("invalid size (expected e.g. 67108864, 64M, 1.5g, or -1 for unlimited)"))
}

/// The options by the pointers of their fields.
const OPTIONS: &[(&str, &str)] = &[
    ("/blockIO/weight", "--blkio-weight"),
    ("/cpu/period", "--cpu-period"),
    ("/cpu/quota", "--cpu-quota"),
    ("/cpu/burst", "--cpu-burst"),
    ("/cpu/shares", "--cpu-share"),
    ("/cpu/idle", "--cpu-idle"),
    ("/cpu/cpus", "--cpuset-cpus"),
    ("/cpu/mems", "--cpuset-mems"),
    ("/memory/limit", "--memory"),
    ("/memory/reservation", "--memory-reservation"),
    ("/memory/swap", "--memory-swap"),
    ("/pids/limit", "--pids-limit"),
];

impl Action for Update {
    fn run(&self, context: &Context) -> Result<ExitCode> {
        run(self, context).map(|()| ExitCode::SUCCESS)
    }
}

fn run(args: &Update, context: &Context) -> Result<()> {
    let is_roll = args.is_roll()?;
    let (change, source) = match &args.resources {
        Some(file) => read(file)?,
        None => (args.resources().to_string().into_bytes(), Source::Options(OPTIONS)),
    };
    let schemata = args.schemata();
    let wanted = Wanted::Limits { resources: &change, source, schemata: &schemata };
    if args.dry_run {
        return dry_run(&args.ids, &wanted, args.format.unwrap_or(Format::Table), context);
    }
    let by = Requester::of_this_process(&context.words, crate::host::environment::sudo_uid());
    match &*args.ids {
        [id] if !is_roll => {
            let made = make(id, &wanted, &by, context)?;
            if !made.put_back.is_empty() {
                context
                    .log
                    .warning(format_args!("reverted an unfinished update first: {}", listed(&made.put_back)));
            }
        }
        ids => {
            let plan = Roll {
                ids,
                wanted,
                by,
                step: args.step.map_or(1, NonZeroUsize::get),
                settle: args.settle.unwrap_or(SETTLE).0,
                most_pressure: args.max_pressure.unwrap_or(MAX_PRESSURE).into(),
            };
            let is_json = args.format == Some(Format::Json);
            let mut reader = Reader::Reads;
            revision::roll(&context.root, &plan, &mut |event, signals| {
                reader.print(event, is_json, signals);
            })?;
        }
    }
    if args.resources.is_some() && has_no_limits(&change) {
        context.log.warning(
            "nothing changed: the document has no linux.resources fields such as \"memory\" or \"pids\"",
        );
    }
    for option in args.without_effect() {
        context.log.warning(format_args!("{option} has no effect on cgroup v2"));
    }
    Ok(())
}

/// Updates one container and records a revision. If the limits are in force, what the update cost the
/// container is only a warning.
pub(super) fn make(id: &ContainerId, wanted: &Wanted<'_>, by: &Requester, context: &Context) -> Result<Made> {
    let about = || format!("container {:?}", id.as_str());
    let made = revision::make(&ContainerRef::named(&context.root, id), wanted, by)
        .map_err(|error| if error.is::<Loss>() { error.context(about()) } else { error })?;
    if let Some(loss) = &made.loss {
        context.log.warning(format_args!("{}: {loss}", about()));
    }
    Ok(made)
}

/// The reader of the progress. If it is gone or slow, containers must not be left half updated, and signals
/// must still be noticed.
#[derive(PartialEq)]
enum Reader {
    Reads,
    /// It was not reading when a signal came.
    Sleeps,
}

impl Reader {
    /// Prints each line in one write, so that readers see whole lines.
    fn print(&mut self, event: &Event<'_>, is_json: bool, signals: &SignalQueue) {
        let mut out = std::io::stdout().lock();
        if *self == Self::Sleeps || !is_taken(&out, signals) {
            *self = Self::Sleeps;
            return;
        }
        let text = match is_json {
            true => printable::json(serde_json::to_string(event).unwrap_or_default()),
            false => printable::escape(&event.to_string()).into_owned(),
        };
        let _ = out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush());
    }
}

/// Waits until `out` is writable; returns false if a signal comes first.
fn is_taken(out: &impl AsFd, signals: &SignalQueue) -> bool {
    let mut waiting =
        [PollFd::new(out, PollFlags::OUT), PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
    let _ = rustix::io::retry_on_intr(|| rustix::event::poll(&mut waiting, None));
    let [out, signal] = &waiting;
    !out.revents().is_empty() || signal.revents().is_empty()
}

pub(super) fn listed(changes: &[Change]) -> String {
    changes.iter().map(|change| change.to_string()).collect::<Vec<_>>().join(", ")
}

/// Prints what would be written for each container.
pub(super) fn dry_run(
    ids: &[ContainerId],
    wanted: &Wanted<'_>,
    format: Format,
    context: &Context,
) -> Result<()> {
    let mut rows = vec![["ID", "FILE", "OLD", "NEW"].map(str::to_owned)];
    let mut writes = Vec::new();
    for id in ids {
        let (_, changes) = revision::preview(&ContainerRef::named(&context.root, id), wanted)?;
        for Change { file, from, to, .. } in changes {
            writes.push(json!({ "id": id.as_str(), "file": file, "old": from, "new": to }));
            rows.push([id.as_str().to_owned(), file, shown(&from).to_owned(), shown(&to).to_owned()]);
        }
    }
    let text = match format {
        Format::Table => table(&rows, 0),
        Format::Json => Value::from(writes).to_string() + "\n",
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("write to standard output")
}

fn read(file: &Path) -> Result<(Vec<u8>, Source)> {
    let (text, name) = if file == Path::new("-") {
        (input::text(std::io::stdin().lock()).context("read standard input")?, "standard input")
    } else {
        (input::document(file, Pipes::Taken)?, "resources.json")
    };
    // serde would accept an array as an object, field by field.
    if matches!(serde_json::from_slice(&text), Ok(Value::Array(_) | Value::Null)) {
        bail!(r#"{name}: expected an object such as {{"memory": {{"limit": 67108864}}}}"#);
    }
    Ok((text, Source::Document(name)))
}

/// The fields of `linux.resources`.
const MEMBERS: [&str; 9] =
    ["devices", "memory", "cpu", "pids", "blockIO", "hugepageLimits", "network", "rdma", "unified"];

/// Whether the document is something else, such as a whole config.json.
fn has_no_limits(text: &[u8]) -> bool {
    let members = serde_json::from_slice::<serde_json::Map<String, Value>>(text).unwrap_or_default();
    !members.is_empty() && !members.keys().any(|name| MEMBERS.contains(&&**name))
}

impl Update {
    /// Whether this is a rolling update.
    ///
    /// # Errors
    /// If an option would have no effect, or a container is given twice.
    fn is_roll(&self) -> Result<bool> {
        let is_roll = self.ids.len() > 1 || self.settle.is_some();
        let needless = [
            ("--step", self.step.is_some(), is_roll, "more than one ID or --settle"),
            ("--max-pressure", self.max_pressure.is_some(), is_roll, "more than one ID or --settle"),
            (
                "--format",
                self.format.is_some(),
                is_roll || self.dry_run,
                "--dry-run, more than one ID or --settle",
            ),
        ];
        if let Some((option, _, _, with)) =
            needless.iter().find(|(_, given, has_effect, _)| *given && !has_effect)
        {
            bail!("{option} requires {with}");
        }
        let mut ids = self.ids.iter().enumerate();
        if let Some((_, id)) = ids.find(|(index, id)| self.ids.iter().take(*index).any(|other| other == *id))
        {
            bail!("container {:?} given more than once", id.as_str());
        }
        Ok(is_roll)
    }

    /// Builds `linux.resources` from the options.
    fn resources(&self) -> Value {
        let mut resources = json!({
            "blockIO": { "weight": self.blkio_weight },
            "cpu": {
                "period": self.cpu_period,
                "quota": self.cpu_quota,
                "burst": self.cpu_burst,
                "shares": self.cpu_share,
                "idle": self.cpu_idle,
                "cpus": self.cpuset_cpus,
                "mems": self.cpuset_mems,
            },
            "memory": {
                "limit": self.memory,
                "reservation": self.memory_reservation,
                "swap": self.memory_swap,
            },
        });
        if let (Some(limit), Some(resources)) = (self.pids_limit, resources.as_object_mut()) {
            // In a document, 0 means unset. On the command line it asks for no further process; runc makes it
            // 1, because systemd does not accept 0.
            let limit = if limit == 0 { 1 } else { limit };
            resources.insert("pids".to_owned(), json!({ "limit": limit }));
        }
        resources
    }

    /// The Intel RDT options given, in the order in which the specification has them written.
    fn schemata(&self) -> Vec<(&'static str, &str)> {
        let options =
            [("--l3-cache-schema", &self.l3_cache_schema), ("--mem-bw-schema", &self.mem_bw_schema)];
        let given = options.into_iter().filter_map(|(option, text)| Some((option, text.as_deref()?)));
        given.filter(|(_, text)| !text.is_empty()).collect()
    }

    /// The options given that have no effect.
    fn without_effect(&self) -> impl Iterator<Item = &'static str> {
        let options = [
            ("--kernel-memory", self.kernel_memory.is_some()),
            ("--kernel-memory-tcp", self.kernel_memory_tcp.is_some()),
            ("--cpu-rt-period", self.cpu_rt_period.is_some()),
            ("--cpu-rt-runtime", self.cpu_rt_runtime.is_some()),
        ];
        let is_read = self.resources.is_none();
        options.into_iter().filter(move |(_, given)| *given && is_read).map(|(option, _)| option)
    }
}
