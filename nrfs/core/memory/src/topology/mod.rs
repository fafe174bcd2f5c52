//! Where replicas are: the nodes to replicate on, with the CPUs that belong to each.
//!
//! Two kinds of nodes are told apart. A [`HardwareNode`] is what the machine has; `hardware` reads that from the
//! kernel. A [`Node`] is one to replicate on. There are three ways from the first to the second:
//!
//! - [`Topology::machine`]: each hardware node that has CPUs and memory for this process is a node. CPUs without memory
//!   near to them belong to the nearest that has some.
//! - [`Topology::emulated`]: any number of nodes. Those beyond the hardware's share one.
//! - [`Topology::explicit`]: as somebody has written it down.
//!
//! A topology is a picture of the moment when it was made, and does not change.

mod hardware;
mod list;
mod policy;
#[cfg(test)]
mod shapes;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::sync::LazyLock;

use crate::heap::Home;

pub(crate) use hardware::bytes_of;
pub use hardware::{Hardware, HardwareNode};

/// A CPU, by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu(pub usize);

/// A NUMA node of the hardware, by the kernel's number. Memory can be bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysicalNode(pub usize);

/// One node to replicate on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The CPUs whose threads use this node's replica. If nodes outnumber CPUs, several nodes share a CPU.
    pub cpus: Vec<Cpu>,
    /// The hardware node for its memory; `None` if the hardware has only one.
    pub physical: Option<PhysicalNode>,
}

/// Why there is no such topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyError {
    /// No node at all was asked for, or more than [`Topology::NODES_MAX`].
    Nodes,
    /// The kernel did not say which CPUs this process may run on.
    NoCpus,
    /// This node of an explicit topology has no CPU.
    NodeWithoutCpus(usize),
    /// The machine has no such CPU.
    UnknownCpu(Cpu),
    /// The CPU is offline.
    OfflineCpu(Cpu),
    /// This process may not run on the CPU.
    ForbiddenCpu(Cpu),
    /// The CPU is twice there.
    CpuTwice(Cpu),
    /// The machine has no such node.
    UnknownNode(PhysicalNode),
    /// The node has no memory, or none that this process may use.
    NodeWithoutMemory(PhysicalNode),
}

impl fmt::Display for TopologyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes => write!(formatter, "a number of nodes from 1 to {} is needed", Topology::NODES_MAX),
            Self::NoCpus => formatter.write_str("cannot tell which CPUs this process may use"),
            Self::NodeWithoutCpus(node) => write!(formatter, "replica {node} has no CPU"),
            Self::UnknownCpu(cpu) => write!(formatter, "there is no CPU {}", cpu.0),
            Self::OfflineCpu(cpu) => write!(formatter, "CPU {} is offline", cpu.0),
            Self::ForbiddenCpu(cpu) => write!(formatter, "this process may not run on CPU {}", cpu.0),
            Self::CpuTwice(cpu) => {
                write!(formatter, "CPU {} is there twice (replicas can share a CPU if they have no other)", cpu.0)
            }
            Self::UnknownNode(node) => write!(formatter, "there is no node {}", node.0),
            Self::NodeWithoutMemory(node) => write!(formatter, "this process has no memory on node {}", node.0),
        }
    }
}

impl std::error::Error for TopologyError {}

/// The nodes, and which of them each CPU serves.
#[derive(Clone, Debug)]
pub struct Topology {
    nodes: Vec<Node>,
    hardware: Hardware,
    /// By node: the index of the hardware's node that its memory is on.
    hosts: Vec<usize>,
    /// Indexed by CPU number; empty for a CPU that was not there at the start.
    nodes_of_cpu: Vec<Vec<usize>>,
    /// The nodes whose memory is nearest to a CPU that belongs to none of them.
    nodes_near_cpu: BTreeMap<Cpu, Vec<usize>>,
}

impl Topology {
    /// The most nodes that Linux supports.
    pub const NODES_MAX: usize = 1024;

    /// The hardware's own nodes, as far as this process may use their CPUs and their memory.
    pub fn machine() -> Result<Self, TopologyError> {
        Ok(Self::own(Hardware::read()?))
    }

    /// `count` nodes. With at least as many as the hardware has, each hardware node is divided, and all CPUs of a node
    /// are the same hardware node's; nodes with many CPUs are divided into more. With fewer, hardware nodes that
    /// follow each other become one, with its memory on the first. With more nodes than CPUs, nodes share CPUs.
    pub fn emulated(count: usize) -> Result<Self, TopologyError> {
        Self::divided(Hardware::read()?, count)
    }

    /// These nodes. Where `physical` is `None`, the memory is on the node of the first CPU. A CPU can be on several
    /// nodes only where it is the only one of each.
    pub fn explicit(nodes: Vec<Node>) -> Result<Self, TopologyError> {
        Self::given(Hardware::read()?, nodes)
    }

    fn own(hardware: Hardware) -> Self {
        let homes = hardware.homes();
        Self::new(hardware, homes)
    }

    fn divided(hardware: Hardware, count: usize) -> Result<Self, TopologyError> {
        if !(1..=Self::NODES_MAX).contains(&count) {
            return Err(TopologyError::Nodes);
        }
        let homes = hardware.homes();
        Ok(Self::new(hardware, if count < homes.len() { merge(&homes, count) } else { divide(&homes, count) }))
    }

    fn given(hardware: Hardware, nodes: Vec<Node>) -> Result<Self, TopologyError> {
        if !(1..=Self::NODES_MAX).contains(&nodes.len()) {
            return Err(TopologyError::Nodes);
        }
        let is_online = |cpu| hardware.nodes.iter().any(|node| node.cpus.contains(cpu));
        let mut placed = Vec::with_capacity(nodes.len());
        for (index, Node { mut cpus, physical }) in nodes.into_iter().enumerate() {
            for &cpu in &cpus {
                match cpu {
                    _ if hardware.allowed.contains(&cpu) => {}
                    _ if hardware.offline.contains(&cpu) => return Err(TopologyError::OfflineCpu(cpu)),
                    _ if is_online(&cpu) => return Err(TopologyError::ForbiddenCpu(cpu)),
                    _ => return Err(TopologyError::UnknownCpu(cpu)),
                }
            }
            let first = *cpus.first().ok_or(TopologyError::NodeWithoutCpus(index))?;
            let host = match physical {
                None => hardware.home_of(first),
                Some(node) => match hardware.index_of(node) {
                    None => return Err(TopologyError::UnknownNode(node)),
                    Some(index) if !hardware.nodes[index].is_usable => {
                        return Err(TopologyError::NodeWithoutMemory(node));
                    }
                    Some(index) => index,
                },
            };
            cpus.sort_unstable();
            if let Some(pair) = cpus.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(TopologyError::CpuTwice(pair[0]));
            }
            placed.push((host, cpus));
        }
        let topology = Self::new(hardware, placed);
        let is_alone = |&node: &usize| topology.nodes[node].cpus.len() == 1;
        let twice = |&cpu: &Cpu| {
            let nodes = topology.nodes_of(cpu);
            nodes.len() > 1 && !nodes.iter().all(is_alone)
        };
        match topology.cpus().into_iter().find(twice) {
            Some(cpu) => Err(TopologyError::CpuTwice(cpu)),
            None => Ok(topology),
        }
    }

    fn new(hardware: Hardware, placed: Vec<(usize, Vec<Cpu>)>) -> Self {
        let last = placed.iter().flat_map(|(_, cpus)| cpus).map(|cpu| cpu.0).max().unwrap_or(0);
        let mut nodes_of_cpu = vec![Vec::new(); last + 1];
        for (index, (_, cpus)) in placed.iter().enumerate() {
            for cpu in cpus {
                nodes_of_cpu[cpu.0].push(index);
            }
        }
        let hosts: Vec<usize> = placed.iter().map(|&(host, _)| host).collect();
        let serves = |cpu: &Cpu| nodes_of_cpu.get(cpu.0).is_some_and(|nodes| !nodes.is_empty());
        let online = hardware.nodes.iter().flat_map(|node| &node.cpus).copied();
        let near = |cpu: Cpu| {
            let home = hardware.home_of(cpu);
            (cpu, (0..hosts.len()).filter(|&node| hosts[node] == home).collect::<Vec<_>>())
        };
        let strangers = online.filter(|cpu| !serves(cpu)).map(near);
        let nodes_near_cpu = strangers.filter(|(_, nodes)| !nodes.is_empty()).collect();
        let physical = |host: usize| (hardware.nodes.len() > 1).then_some(hardware.nodes[host].node);
        let nodes = placed.into_iter().map(|(host, cpus)| Node { cpus, physical: physical(host) }).collect();
        Self { nodes, hardware, hosts, nodes_of_cpu, nodes_near_cpu }
    }

    /// All nodes; a node's index here is its number.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The machine that the nodes are on.
    pub fn hardware(&self) -> &Hardware {
        &self.hardware
    }

    /// The hardware's node that the memory of a node is on.
    pub fn host_of(&self, node: usize) -> &HardwareNode {
        &self.hardware.nodes[self.hosts[node]]
    }

    /// The hardware's nodes that have memory of at least one node, in ascending order, and how many nodes share each.
    pub fn hosts(&self) -> impl Iterator<Item = (&HardwareNode, usize)> {
        let guests = |index| self.hosts.iter().filter(|&&host| host == index).count();
        let all = self.hardware.nodes.iter().enumerate().map(move |(index, node)| (node, guests(index)));
        all.filter(|&(_, guests)| guests > 0)
    }

    /// The CPUs of all nodes, in ascending order.
    pub fn cpus(&self) -> Vec<Cpu> {
        let serves = |&cpu: &usize| !self.nodes_of_cpu[cpu].is_empty();
        (0..self.nodes_of_cpu.len()).filter(serves).map(Cpu).collect()
    }

    /// The nodes that a CPU belongs to: more than one if nodes outnumber CPUs.
    pub fn nodes_of(&self, cpu: Cpu) -> &[usize] {
        self.nodes_of_cpu.get(cpu.0).map_or(&[], Vec::as_slice)
    }

    /// The node for a thread on `cpu`. If several nodes share that CPU, `turn` chooses among them. A CPU that belongs
    /// to no node gets one with memory near to it, or if it was not there at the start, some node.
    pub fn node_of(&self, cpu: Cpu, turn: impl FnOnce() -> usize) -> usize {
        match self.nodes_of(cpu) {
            [only] => *only,
            [] => match self.nodes_near_cpu.get(&cpu) {
                Some(near) => near[cpu.0 % near.len()],
                None => cpu.0 % self.nodes.len(),
            },
            several => several[turn() % several.len()],
        }
    }
}

/// Fewer nodes than there are: `count` groups of neighbours, each with its memory on its first.
fn merge(homes: &[(usize, Vec<Cpu>)], count: usize) -> Vec<(usize, Vec<Cpu>)> {
    let group = |node: usize| {
        let members = &homes[node * homes.len() / count..(node + 1) * homes.len() / count];
        let mut cpus: Vec<Cpu> = members.iter().flat_map(|(_, cpus)| cpus).copied().collect();
        cpus.sort_unstable();
        (members[0].0, cpus)
    };
    (0..count).map(group).collect()
}

/// At least as many nodes as there are, in parts of them. Each further part goes to where parts have the most CPUs, as
/// seats go to parties by the method of Adams. So no part shares a CPU while another could be divided.
fn divide(homes: &[(usize, Vec<Cpu>)], count: usize) -> Vec<(usize, Vec<Cpu>)> {
    let mut parts = vec![1; homes.len()];
    for _ in homes.len()..count {
        let by_crowd = |&a: &usize, &b: &usize| (homes[b].1.len() * parts[a]).cmp(&(homes[a].1.len() * parts[b]));
        let crowded = (0..homes.len()).min_by(by_crowd).unwrap_or(0);
        parts[crowded] += 1;
    }
    let part = |cpus: &[Cpu], parts: usize, part: usize| {
        if parts > cpus.len() {
            return vec![cpus[part % cpus.len()]];
        }
        cpus[part * cpus.len() / parts..(part + 1) * cpus.len() / parts].to_vec()
    };
    let parts_of = |((host, cpus), parts): (&(usize, Vec<Cpu>), usize)| {
        (0..parts).map(|number| (*host, part(cpus, parts, number))).collect::<Vec<_>>()
    };
    homes.iter().zip(parts).flat_map(parts_of).collect()
}

/// The CPU the calling thread runs on at this moment.
pub fn current_cpu() -> Cpu {
    // SAFETY: sched_getcpu takes nothing and touches no memory of ours.
    let cpu = unsafe { libc::sched_getcpu() };
    Cpu(usize::try_from(cpu).unwrap_or(0))
}

/// The node of the hardware that a CPU belongs to, as far as the kernel tells: of a CPU that is offline it may not.
pub fn physical_node_of(cpu: Cpu) -> Option<PhysicalNode> {
    let entries = fs::read_dir(format!("/sys/devices/system/cpu/cpu{}", cpu.0)).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("node")?.parse().ok()).map(PhysicalNode).next()
}

/// The nodes that all memory of this process was bound to when it was started, as by `numactl --membind=0,1`.
pub(crate) fn bound_nodes() -> Option<&'static [PhysicalNode]> {
    // In no heap of a node, as this may be called to make one.
    static BOUND: LazyLock<Option<Vec<PhysicalNode>>> = LazyLock::new(|| {
        Home::Anywhere.during(|| Some(policy::bound_nodes()?.into_iter().map(PhysicalNode).collect()))
    });
    BOUND.as_deref()
}

/// The nodes whose memory this process may use, if it may not use that of all: by its policy, or its cpuset.
pub(crate) fn confined_to() -> Option<&'static [PhysicalNode]> {
    static NODES: LazyLock<Option<Vec<PhysicalNode>>> = LazyLock::new(|| {
        let nodes = Hardware::read().ok()?.nodes;
        let is_confined = nodes.iter().any(|node| node.memory > 0 && !node.is_usable);
        is_confined.then(|| nodes.iter().filter(|node| node.is_usable).map(|node| node.node).collect())
    });
    NODES.as_deref()
}

/// The nodes of the hardware whose memory this process may use.
pub(crate) fn memory_nodes() -> Vec<PhysicalNode> {
    let nodes = Hardware::read().map(|hardware| hardware.nodes).unwrap_or_default();
    nodes.into_iter().filter(|node| node.is_usable).map(|node| node.node).collect()
}

/// One more than the largest number that a CPU of this machine can ever have.
pub fn possible_cpus() -> usize {
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    list::parse(&possible).into_iter().max().map_or(1, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulated_nodes_share_out_every_cpu_once() {
        let cpus = Hardware::read().unwrap().allowed;
        for count in 1..=cpus.len() {
            let topology = Topology::emulated(count).unwrap();
            let shared_out: Vec<Cpu> = topology.nodes().iter().flat_map(|node| node.cpus.clone()).collect();
            assert_eq!((shared_out.len(), topology.cpus()), (cpus.len(), cpus.clone()));
            assert!(topology.nodes().iter().all(|node| !node.cpus.is_empty()));
        }
    }

    #[test]
    fn nodes_beyond_the_cpus_take_turns() {
        let cpus = Hardware::read().unwrap().allowed;
        let topology = Topology::emulated(cpus.len() * 3).unwrap();
        let used: std::collections::BTreeSet<usize> = cpus
            .iter()
            .flat_map(|&cpu| (0..3).map(move |turn| (cpu, turn)))
            .map(|(cpu, turn)| topology.node_of(cpu, || turn))
            .collect();
        assert_eq!(used.len(), cpus.len() * 3);
    }

    #[test]
    fn no_nodes_is_an_error_and_the_machine_has_some() {
        assert_eq!(Topology::emulated(0).unwrap_err(), TopologyError::Nodes);
        assert_eq!(Topology::emulated(Topology::NODES_MAX + 1).unwrap_err(), TopologyError::Nodes);
        assert_eq!(Topology::explicit(Vec::new()).unwrap_err(), TopologyError::Nodes);
        let machine = Topology::machine().unwrap();
        assert!(machine.node_of(current_cpu(), || 0) < machine.nodes().len());
        assert!(machine.node_of(Cpu(1 << 20), || 0) < machine.nodes().len());
    }
}
