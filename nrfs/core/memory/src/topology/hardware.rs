//! What the kernel says of this machine: its nodes, CPUs, memory and distances, and which of them this process may use.
//!
//! The sources are sysfs (Documentation/ABI/stable/sysfs-devices-node in Linux), /proc/self/status and /proc/meminfo.
//! All are read below a root folder, so that tests can describe other machines. A kernel without support for NUMA has
//! no nodes there: then all CPUs and all memory are node 0's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{Cpu, PhysicalNode, TopologyError, list, policy};

/// Distances where the kernel says none: of a node to itself, and to another (include/linux/topology.h).
const LOCAL_DISTANCE: u32 = 10;
const REMOTE_DISTANCE: u32 = 20;

/// A NUMA node of the hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HardwareNode {
    /// Its number.
    pub node: PhysicalNode,
    /// Its CPUs that are online, in ascending order. There are nodes without any.
    pub cpus: Vec<Cpu>,
    /// Bytes of its memory; 0 if it has none.
    pub memory: u64,
    /// Bytes of its memory that nobody used when this was read.
    pub free: u64,
    /// Whether it has memory that this process may use, by its cpuset and its memory policy.
    pub is_usable: bool,
    /// How far the memory of each node is, in the order of [`Hardware::nodes`]. A node is at 10 from itself.
    pub distances: Vec<u32>,
}

/// The machine, as far as it matters to where replicas are.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// All nodes that are online, in ascending order. There is at least one.
    pub nodes: Vec<HardwareNode>,
    /// The CPUs that are online and that this process may run on, in ascending order. There is at least one.
    pub allowed: Vec<Cpu>,
    /// The CPUs that the machine has and that are offline, in ascending order.
    pub offline: Vec<Cpu>,
}

impl Hardware {
    /// This machine, for this process.
    pub(super) fn read() -> Result<Self, TopologyError> {
        Self::read_below(Path::new("/"), policy::bound_nodes().as_deref())
    }

    /// The machine that the files below `root` describe. `bound`: the nodes that memory is bound to, if it is bound.
    pub(super) fn read_below(root: &Path, bound: Option<&[usize]>) -> Result<Self, TopologyError> {
        let read = |path: &str| fs::read_to_string(root.join(path)).ok();
        let cpus = |name: &str| read(&format!("sys/devices/system/cpu/{name}")).map(|text| cpus_of(&text));
        let status = read("proc/self/status").unwrap_or_default();
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
        // The kernel leaves CPUs in this list when they go offline.
        let mut allowed = cpus_of(field("Cpus_allowed_list:").unwrap_or_default());
        let online = cpus("online");
        if let Some(online) = &online {
            allowed.retain(|cpu| online.contains(cpu));
        }
        if allowed.is_empty() {
            return Err(TopologyError::NoCpus);
        }
        let online = online.unwrap_or_else(|| allowed.clone());
        let offline = cpus("present").unwrap_or_default().into_iter().filter(|cpu| !online.contains(cpu)).collect();
        let mut nodes = nodes_below(&read, &online);
        let may_use = |node: usize| {
            let in_cpuset = field("Mems_allowed_list:").is_none_or(|text| list::parse(text).contains(&node));
            in_cpuset && bound.is_none_or(|bound| bound.contains(&node))
        };
        for node in &mut nodes {
            node.is_usable = node.memory > 0 && may_use(node.node.0);
        }
        // Memory has to come from somewhere: what says that there is none is not believed.
        if !nodes.iter().any(|node| node.is_usable) {
            nodes.iter_mut().for_each(|node| node.is_usable = true);
        }
        Ok(Self { nodes, allowed, offline })
    }

    /// The index of a node.
    pub(super) fn index_of(&self, node: PhysicalNode) -> Option<usize> {
        self.nodes.iter().position(|other| other.node == node)
    }

    /// The index of the node with memory for a CPU: its own, or where that has none, the nearest that has; of nodes
    /// equally near, the one with the lowest number.
    pub(super) fn home_of(&self, cpu: Cpu) -> usize {
        let own = self.nodes.iter().position(|node| node.cpus.contains(&cpu)).unwrap_or(0);
        let usable = (0..self.nodes.len()).filter(|&index| self.nodes[index].is_usable);
        let distance = |index: usize| if index == own { 0 } else { self.distance(own, index) };
        usable.min_by_key(|&index| (distance(index), index)).unwrap_or(own)
    }

    /// The nodes that get a replica each, by index in ascending order, with the CPUs of this process that are there.
    pub(super) fn homes(&self) -> Vec<(usize, Vec<Cpu>)> {
        let mut homes: BTreeMap<usize, Vec<Cpu>> = BTreeMap::new();
        for &cpu in &self.allowed {
            homes.entry(self.home_of(cpu)).or_default().push(cpu);
        }
        homes.into_iter().collect()
    }

    fn distance(&self, from: usize, to: usize) -> u32 {
        self.nodes[from].distances.get(to).copied().unwrap_or(REMOTE_DISTANCE)
    }
}

/// The nodes, without what this process may do with them.
fn nodes_below(read: &impl Fn(&str) -> Option<String>, online: &[Cpu]) -> Vec<HardwareNode> {
    let of_node = |path: &str| read(&format!("sys/devices/system/node/{path}"));
    let numbers = of_node("online").map(|text| sorted(list::parse(&text))).unwrap_or_default();
    if numbers.len() < 2 {
        let table = read("proc/meminfo").unwrap_or_default();
        let [memory, free] = ["MemTotal:", "MemFree:"].map(|name| bytes_of(&table, name));
        let node = PhysicalNode(numbers.first().copied().unwrap_or(0));
        let (cpus, distances) = (online.to_vec(), vec![LOCAL_DISTANCE]);
        return vec![HardwareNode { node, cpus, memory, free, is_usable: false, distances }];
    }
    let with_memory = of_node("has_memory").or_else(|| of_node("has_normal_memory")).map(|text| list::parse(&text));
    let node = |&number: &usize| {
        let table = of_node(&format!("node{number}/meminfo")).unwrap_or_default();
        let has_memory = with_memory.as_ref().is_none_or(|nodes| nodes.contains(&number));
        let bytes = |name| if has_memory { bytes_of(&table, name) } else { 0 };
        let mut cpus = cpus_of(&of_node(&format!("node{number}/cpulist")).unwrap_or_default());
        cpus.retain(|cpu| online.contains(cpu));
        let said = of_node(&format!("node{number}/distance")).unwrap_or_default();
        let said: Vec<u32> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let usual = numbers.iter().map(|other| if *other == number { LOCAL_DISTANCE } else { REMOTE_DISTANCE });
        HardwareNode {
            node: PhysicalNode(number),
            cpus,
            memory: bytes("MemTotal:"),
            free: bytes("MemFree:"),
            is_usable: false,
            distances: if said.len() == numbers.len() { said } else { usual.collect() },
        }
    };
    numbers.iter().map(node).collect()
}

fn cpus_of(text: &str) -> Vec<Cpu> {
    sorted(list::parse(text)).into_iter().map(Cpu).collect()
}

fn sorted(mut numbers: Vec<usize>) -> Vec<usize> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// A field of /proc/meminfo, or of a node's meminfo, whose lines begin with the node: `Node 0 MemTotal:  16 kB`.
pub(crate) fn bytes_of(table: &str, name: &str) -> u64 {
    let value = table.lines().find_map(|line| line.split_once(name).map(|(_, value)| value));
    let kibibytes = value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}
