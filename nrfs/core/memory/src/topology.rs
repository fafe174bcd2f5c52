//! The nodes of this machine and the CPUs that belong to each.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

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
#[derive(Debug, PartialEq, Eq)]
pub enum TopologyError {
    /// No node at all was asked for, or more than [`Topology::NODES_MAX`].
    Nodes,
    /// The kernel did not say which CPUs this process may run on.
    NoCpus,
}

impl fmt::Display for TopologyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes => write!(formatter, "a number of nodes from 1 to {} is needed", Topology::NODES_MAX),
            Self::NoCpus => formatter.write_str("cannot tell which CPUs this process may use"),
        }
    }
}

impl std::error::Error for TopologyError {}

/// The nodes, and which of them each CPU serves.
#[derive(Clone, Debug)]
pub struct Topology {
    nodes: Vec<Node>,
    /// Indexed by CPU number; empty for a CPU that was not there at the start.
    nodes_of_cpu: Vec<Vec<usize>>,
}

impl Topology {
    /// The most nodes that Linux supports.
    pub const NODES_MAX: usize = 1024;

    /// The hardware's own nodes, as far as this process may run on their CPUs.
    pub fn machine() -> Result<Self, TopologyError> {
        let allowed = allowed_cpus()?;
        let mut nodes: BTreeMap<Option<PhysicalNode>, Vec<Cpu>> = BTreeMap::new();
        let physical = physical_nodes();
        for cpu in allowed {
            nodes.entry(physical.get(&cpu).copied()).or_default().push(cpu);
        }
        Ok(Self::new(nodes.into_iter().map(|(physical, cpus)| Node { cpus, physical }).collect()))
    }

    /// `count` nodes that split the CPUs evenly; with more nodes than CPUs, nodes share CPUs.
    pub fn emulated(count: usize) -> Result<Self, TopologyError> {
        if !(1..=Self::NODES_MAX).contains(&count) {
            return Err(TopologyError::Nodes);
        }
        let allowed = allowed_cpus()?;
        let physical = physical_nodes();
        let cpus_of = |node: usize| -> Vec<Cpu> {
            if count > allowed.len() {
                return vec![allowed[node % allowed.len()]];
            }
            let first = node * allowed.len() / count;
            let end = (node + 1) * allowed.len() / count;
            allowed[first..end].to_vec()
        };
        let nodes = (0..count).map(cpus_of).map(|cpus| Node { physical: physical.get(&cpus[0]).copied(), cpus });
        Ok(Self::new(nodes.collect()))
    }

    fn new(nodes: Vec<Node>) -> Self {
        let last = nodes.iter().flat_map(|node| &node.cpus).map(|cpu| cpu.0).max().unwrap_or(0);
        let mut nodes_of_cpu = vec![Vec::new(); last + 1];
        for (index, node) in nodes.iter().enumerate() {
            for cpu in &node.cpus {
                nodes_of_cpu[cpu.0].push(index);
            }
        }
        Self { nodes, nodes_of_cpu }
    }

    /// All nodes; a node's index here is its number.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
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

    /// The node for a thread on `cpu`. If several nodes share that CPU, `turn` chooses among them. A CPU that
    /// was not there at the start gets some node.
    pub fn node_of(&self, cpu: Cpu, turn: impl FnOnce() -> usize) -> usize {
        match self.nodes_of_cpu.get(cpu.0).map(Vec::as_slice) {
            None | Some([]) => cpu.0 % self.nodes.len(),
            Some([only]) => *only,
            Some(several) => several[turn() % several.len()],
        }
    }
}

/// The CPU the calling thread runs on at this moment.
pub fn current_cpu() -> Cpu {
    // SAFETY: sched_getcpu takes nothing and touches no memory of ours.
    let cpu = unsafe { libc::sched_getcpu() };
    Cpu(usize::try_from(cpu).unwrap_or(0))
}

/// One more than the largest number that a CPU of this machine can ever have.
pub fn possible_cpus() -> usize {
    let list = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    parse_list(&list).into_iter().max().map_or(1, |last| last + 1)
}

/// The node of the hardware that a CPU belongs to, as far as the kernel tells: of a CPU that is offline it may not.
pub fn physical_node_of(cpu: Cpu) -> Option<PhysicalNode> {
    let entries = fs::read_dir(format!("/sys/devices/system/cpu/cpu{}", cpu.0)).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("node")?.parse().ok()).map(PhysicalNode).next()
}

/// The CPUs this process may run on, in ascending order.
fn allowed_cpus() -> Result<Vec<Cpu>, TopologyError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let cpus = parse_list(list.unwrap_or_default());
    if cpus.is_empty() { Err(TopologyError::NoCpus) } else { Ok(cpus.into_iter().map(Cpu).collect()) }
}

/// The hardware node of each CPU; empty if the hardware has only one node.
fn physical_nodes() -> BTreeMap<Cpu, PhysicalNode> {
    let root = Path::new("/sys/devices/system/node");
    let online = parse_list(&fs::read_to_string(root.join("online")).unwrap_or_default());
    if online.len() < 2 {
        return BTreeMap::new();
    }
    let cpus_of = |node: usize| {
        let list = fs::read_to_string(root.join(format!("node{node}/cpulist"))).unwrap_or_default();
        parse_list(&list).into_iter().map(move |cpu| (Cpu(cpu), PhysicalNode(node)))
    };
    online.into_iter().flat_map(cpus_of).collect()
}

/// The nodes of the hardware that have memory.
pub(crate) fn memory_nodes() -> Vec<PhysicalNode> {
    let list = fs::read_to_string("/sys/devices/system/node/has_memory").unwrap_or_default();
    parse_list(&list).into_iter().map(PhysicalNode).collect()
}

/// Reads the kernel's list format: `0-3,8,10-11`.
fn parse_list(list: &str) -> Vec<usize> {
    let parse_range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?)
    };
    list.trim().split(',').filter_map(parse_range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_list_is_read_as_the_kernel_writes_it() {
        assert_eq!(parse_list("0-2,5,7-8\n"), [0, 1, 2, 5, 7, 8]);
        assert_eq!(parse_list("\n"), []);
    }

    #[test]
    fn emulated_nodes_share_out_every_cpu_once() {
        let cpus = allowed_cpus().unwrap();
        for count in 1..=cpus.len() {
            let topology = Topology::emulated(count).unwrap();
            let shared_out: Vec<Cpu> = topology.nodes().iter().flat_map(|node| node.cpus.clone()).collect();
            assert_eq!(shared_out, cpus);
            assert!(topology.nodes().iter().all(|node| !node.cpus.is_empty()));
        }
    }

    #[test]
    fn nodes_beyond_the_cpus_take_turns() {
        let cpus = allowed_cpus().unwrap();
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
        let machine = Topology::machine().unwrap();
        assert!(machine.node_of(current_cpu(), || 0) < machine.nodes().len());
        assert!(machine.node_of(Cpu(1 << 20), || 0) < machine.nodes().len());
    }
}
