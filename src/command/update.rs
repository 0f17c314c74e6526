//! `runtime update`: other limits for a container that runs.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::bytes;
use crate::cgroup::{Source, Update as Applied};
use crate::cli::Context;
use crate::container::ContainerId;
use crate::error::Refusal;
use crate::intel_rdt;
use crate::signals::Signals;
use crate::state::Status;

/// Change the limits of a container
///
/// A value that is not given stays as it is, and so does one of 0 or "" in FILE. If one of them cannot be had, all stay as they
/// are.
#[derive(Debug, clap::Args)]
pub struct Update {
    /// Read them from this file, - for standard input: JSON in the form of linux.resources; the other options are then ignored
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Share of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Length of a period in microseconds, for --cpu-quota
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Processor time in each period in microseconds; -1 is unlimited
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_quota: Option<i64>,
    /// Unused quota that can be saved up, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,
    /// Share of processor time, 2 to 262144
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// Without effect: cgroup v2 has no realtime limits
    #[arg(long, value_name = "MICROSECONDS", hide = true)]
    cpu_rt_period: Option<u64>,
    /// Without effect: cgroup v2 has no realtime limits
    #[arg(long, value_name = "MICROSECONDS", hide = true)]
    cpu_rt_runtime: Option<i64>,
    /// 1: run only when nobody else wants to; 0: as usual
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    /// Processors to use: "0-2,7"
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use: "0,1"
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Without effect: kernel memory counts as memory
    #[arg(long, value_name = "BYTES", value_parser = bytes, hide = true)]
    kernel_memory: Option<i64>,
    /// Without effect: kernel memory counts as memory
    #[arg(long, value_name = "BYTES", value_parser = bytes, hide = true)]
    kernel_memory_tcp: Option<i64>,
    /// Limit of memory, with k, m or g for powers of 1024; -1 is unlimited
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<i64>,
    /// Memory that is taken from it last
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory_reservation: Option<i64>,
    /// Limit of memory and swap together; -1 is unlimited
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory_swap: Option<i64>,
    /// Limit of processes and threads; -1 is unlimited
    #[arg(long, value_name = "NUMBER")]
    pids_limit: Option<i64>,
    /// Schema for Intel RDT, cache allocation
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Schema for Intel RDT, memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: ContainerId,
}

fn bytes(text: &str) -> Result<i64> {
    bytes::parse(text).ok_or_else(|| anyhow!("no number of bytes such as 67108864, 64M or 1.5g, nor -1"))
}

/// The options by the pointers of their values.
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

pub fn run(args: &Update, context: &Context<'_>) -> Result<()> {
    let (change, source) = match &args.resources {
        Some(file) => read(file)?,
        None => (args.resources().to_string().into_bytes(), Source::Options(OPTIONS)),
    };
    // Two updates at a time would each record only their own.
    let lock = context.root.lock(&args.id)?;
    let mut container = context.root.load(&args.id)?;
    match container.status()? {
        Status::Created | Status::Running | Status::Paused => {}
        // Its record is not finished, and what is in it would be lost.
        Status::Creating => {
            bail!("container {:?} is being created: container not running", container.state.id)
        }
        Status::Stopped => return Err(Refusal::NotRunning(container.state.id).into()),
    }
    let schemata = args.schemata();
    let rdt = container.state.intel_rdt();
    if let (Some((option, _)), None) = (schemata.first(), &rdt) {
        bail!("{option}: updating a non-existent Intel RDT configuration is not supported");
    }
    // All or nothing is in force, whoever wants to end this process meanwhile.
    Signals::block()?;
    let applied = Applied::apply(container.cgroup()?, container.state.resources.as_deref(), &change, source)?;
    if let Some(rdt) = rdt.filter(|_| !schemata.is_empty()) {
        intel_rdt::update(&rdt, &schemata)?;
    }
    container.state.resources = Some(applied.in_force().to_owned());
    container.save(&lock)?;
    applied.keep();
    for option in args.without_effect() {
        context.log.warning(format_args!("{option} has no effect with cgroup v2"));
    }
    Ok(())
}

fn read(file: &Path) -> Result<(Vec<u8>, Source)> {
    if file == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().lock().read_to_end(&mut text).context("read standard input")?;
        return Ok((text, Source::Document("standard input")));
    }
    let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    Ok((text, Source::Document("resources.json")))
}

impl Update {
    /// `linux.resources` with the values of the options.
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
            // In a document, 0 means that there is no value. Whoever gives one wants no process more; runc makes it 1, because
            // systemd knows no 0.
            let limit = if limit == 0 { 1 } else { limit };
            resources.insert("pids".to_owned(), json!({ "limit": limit }));
        }
        resources
    }

    /// The options for Intel RDT that were given, in the order in which the specification has them written.
    fn schemata(&self) -> Vec<(&'static str, &str)> {
        let options =
            [("--l3-cache-schema", &self.l3_cache_schema), ("--mem-bw-schema", &self.mem_bw_schema)];
        let given = options.into_iter().filter_map(|(option, text)| Some((option, text.as_deref()?)));
        given.filter(|(_, text)| !text.is_empty()).collect()
    }

    /// The options that were given in vain.
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
