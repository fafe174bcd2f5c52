//! Tests with machines of other shapes, each described by files in a folder of its own.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A machine as the files of sysfs and procfs describe it. It goes when this is dropped.
struct Machine(PathBuf);

/// CPUs (as a list), GiB of memory, and distances of a node.
type Shape<'a> = (&'a str, u64, &'a str);

impl Machine {
    /// Its nodes are numbered from 0. All CPUs are online, and the process may use all.
    fn new(cpus: &str, nodes: &[Shape<'_>]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let machine = Self(std::env::temp_dir().join(format!("nrfs-machine-{}-{number}", std::process::id())));
        let cpu_file = |name: &str| machine.write(&format!("sys/devices/system/cpu/{name}"), cpus);
        ["online", "present", "possible"].into_iter().for_each(cpu_file);
        let last = nodes.len() - 1;
        machine.write("sys/devices/system/node/online", &format!("0-{last}"));
        let with_memory: Vec<String> =
            (0..=last).filter(|&node| nodes[node].1 > 0).map(|node| node.to_string()).collect();
        machine.write("sys/devices/system/node/has_memory", &with_memory.join(","));
        for (node, (cpus, gibibytes, distances)) in nodes.iter().enumerate() {
            let kibibytes = gibibytes << 20;
            let file =
                |name: &str, text: &str| machine.write(&format!("sys/devices/system/node/node{node}/{name}"), text);
            file("cpulist", cpus);
            file("distance", distances);
            let field = |name, value| format!("Node {node} {name}:       {value} kB\n");
            file("meminfo", &(field("MemTotal", kibibytes) + &field("MemFree", kibibytes / 2)));
        }
        machine.write("proc/meminfo", "MemTotal:       16777216 kB\nMemFree:         1048576 kB\n");
        machine.allow(cpus, &format!("0-{last}"));
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    /// What the process may use.
    fn allow(&self, cpus: &str, nodes: &str) {
        let cpus = format!("Cpus_allowed:\tff\nCpus_allowed_list:\t{cpus}\n");
        self.write("proc/self/status", &format!("Name:\tnrfs\n{cpus}Mems_allowed:\tff\nMems_allowed_list:\t{nodes}"));
    }

    fn hardware(&self) -> Hardware {
        Hardware::read_below(&self.0, None).unwrap()
    }

    fn topology(&self) -> Topology {
        Topology::own(self.hardware())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Of each node to replicate on, the CPUs and the hardware's node.
fn placed(topology: &Topology) -> Vec<(Vec<usize>, usize)> {
    let of = |(index, node): (usize, &Node)| {
        assert_eq!(node.physical.unwrap_or(PhysicalNode(0)), topology.host_of(index).node);
        (node.cpus.iter().map(|cpu| cpu.0).collect(), topology.host_of(index).node.0)
    };
    topology.nodes().iter().enumerate().map(of).collect()
}

fn cpus(numbers: impl IntoIterator<Item = usize>) -> Vec<Cpu> {
    numbers.into_iter().map(Cpu).collect()
}

fn node(numbers: impl IntoIterator<Item = usize>, physical: Option<usize>) -> Node {
    Node { cpus: cpus(numbers), physical: physical.map(PhysicalNode) }
}

#[test]
fn cpus_of_a_node_without_memory_join_the_nearest_that_has_some() {
    let distances = ["10 20 30 40", "20 10 40 15", "30 40 10 20", "40 15 20 10"];
    let shapes =
        [("0-1", 8, distances[0]), ("2-3", 0, distances[1]), ("4-5", 8, distances[2]), ("6-7", 8, distances[3])];
    let topology = Machine::new("0-7", &shapes).topology();
    assert_eq!(placed(&topology), [(vec![0, 1], 0), (vec![4, 5], 2), (vec![2, 3, 6, 7], 3)]);
}

#[test]
fn of_nodes_equally_near_the_lowest_number_gets_the_cpus() {
    let shapes = [("0", 0, "10 20 20"), ("1", 4, "20 10 20"), ("2", 4, "20 20 10")];
    assert_eq!(placed(&Machine::new("0-2", &shapes).topology()), [(vec![0, 1], 1), (vec![2], 2)]);
}

#[test]
fn a_node_without_cpus_gets_no_replica_unless_it_is_named() {
    let machine = Machine::new("0-1", &[("0-1", 8, "10 40"), ("", 64, "40 10")]);
    assert_eq!(placed(&machine.topology()), [(vec![0, 1], 0)]);
    let split = Topology::divided(machine.hardware(), 2).unwrap();
    assert_eq!(placed(&split), [(vec![0], 0), (vec![1], 0)]);
    let far = Topology::given(machine.hardware(), vec![node([0], Some(0)), node([1], Some(1))]).unwrap();
    assert_eq!(placed(&far), [(vec![0], 0), (vec![1], 1)]);
}

#[test]
fn an_offline_cpu_makes_no_phantom_replica() {
    let machine = Machine::new("0-3", &[("0-1", 8, "10 20"), ("2", 8, "20 10")]);
    // The kernel takes it out of its node's list, and leaves it in the process's.
    machine.write("sys/devices/system/cpu/online", "0-2");
    assert_eq!(placed(&machine.topology()), [(vec![0, 1], 0), (vec![2], 1)]);
    assert_eq!((machine.hardware().allowed, machine.hardware().offline), (cpus(0..3), cpus([3])));
    let split = Topology::divided(machine.hardware(), 3).unwrap();
    assert_eq!(placed(&split), [(vec![0], 0), (vec![1], 0), (vec![2], 1)]);
}

#[test]
fn a_node_whose_cpus_the_process_may_not_use_gets_no_replica() {
    let machine = Machine::new("0-7", &[("0-3", 8, "10 20"), ("4-7", 8, "20 10")]);
    machine.allow("5,7", "0-1");
    assert_eq!(placed(&machine.topology()), [(vec![5, 7], 1)]);
    assert_eq!(placed(&Topology::divided(machine.hardware(), 2).unwrap()), [(vec![5], 1), (vec![7], 1)]);
}

#[test]
fn a_node_whose_memory_the_process_may_not_use_counts_as_one_without() {
    let machine = Machine::new("0-7", &[("0-3", 8, "10 20"), ("4-7", 8, "20 10")]);
    machine.allow("0-7", "1");
    let all_on_the_second = [((0..8).collect::<Vec<_>>(), 1)];
    assert_eq!(placed(&machine.topology()), all_on_the_second);
    machine.allow("0-7", "0-1");
    let bound = Hardware::read_below(&machine.0, Some(&[1])).unwrap();
    assert_eq!(placed(&Topology::own(bound.clone())), all_on_the_second);
    let refused = Topology::given(bound, vec![node([0], Some(0))]);
    assert_eq!(refused.unwrap_err(), TopologyError::NodeWithoutMemory(PhysicalNode(0)));
    // A process without any memory would not run.
    let nowhere = Hardware::read_below(&machine.0, Some(&[])).unwrap();
    assert_eq!(placed(&Topology::own(nowhere)).len(), 2);
}

#[test]
fn uneven_nodes_are_divided_by_their_cpus() {
    let machine = Machine::new("0-7", &[("0-5", 8, "10 20"), ("6-7", 2, "20 10")]);
    let split = |count| placed(&Topology::divided(machine.hardware(), count).unwrap());
    assert_eq!(split(1), [((0..8).collect(), 0)]);
    assert_eq!(split(2), [((0..6).collect(), 0), (vec![6, 7], 1)]);
    assert_eq!(split(4), [(vec![0, 1], 0), (vec![2, 3], 0), (vec![4, 5], 0), (vec![6, 7], 1)]);
    for count in 2..24 {
        let topology = Topology::divided(machine.hardware(), count).unwrap();
        assert_eq!((topology.nodes().len(), topology.cpus()), (count, cpus(0..8)));
        let guests: Vec<usize> = topology.hosts().map(|(_, guests)| guests).collect();
        assert_eq!((guests.len(), guests.iter().sum()), (2, count));
        for (index, node) in topology.nodes().iter().enumerate() {
            assert!(node.cpus.iter().all(|cpu| topology.host_of(index).cpus.contains(cpu)));
            assert!(count > 8 || node.cpus.iter().all(|&cpu| topology.nodes_of(cpu).len() == 1));
        }
    }
    let memory = |topology: &Topology| topology.hosts().map(|(node, _)| node.memory >> 30).collect::<Vec<_>>();
    assert_eq!(memory(&machine.topology()), [8, 2]);
}

#[test]
fn fewer_nodes_than_the_hardware_has_join_neighbours() {
    let shapes = [("0-1", 8, "10 20 20"), ("2-3", 8, "20 10 20"), ("4-5", 8, "20 20 10")];
    let machine = Machine::new("0-5", &shapes);
    let joined = Topology::divided(machine.hardware(), 2).unwrap();
    assert_eq!(placed(&joined), [(vec![0, 1], 0), (vec![2, 3, 4, 5], 1)]);
}

#[test]
fn distances_are_the_firmwares_or_the_usual_ones() {
    let machine = Machine::new("0-1", &[("0", 8, "10 31"), ("1", 8, "32 10")]);
    let distances = |hardware: Hardware| hardware.nodes.into_iter().map(|node| node.distances).collect::<Vec<_>>();
    assert_eq!(distances(machine.hardware()), [[10, 31], [32, 10]]);
    machine.write("sys/devices/system/node/node0/distance", "10");
    fs::remove_file(machine.0.join("sys/devices/system/node/node1/distance")).unwrap();
    assert_eq!(distances(machine.hardware()), [[10, 20], [20, 10]]);
}

#[test]
fn a_machine_with_one_node_or_a_kernel_that_knows_none_binds_no_memory() {
    let machine = Machine::new("0-3", &[("0-3", 8, "10")]);
    let check = || {
        let topology = Topology::divided(machine.hardware(), 2).unwrap();
        assert_eq!(topology.nodes(), [node([0, 1], None), node([2, 3], None)]);
        let hosts: Vec<_> =
            topology.hosts().map(|(node, guests)| (node.node.0, node.memory, node.free, guests)).collect();
        assert_eq!(hosts, [(0, 16 << 30, 1 << 30, 2)]);
    };
    check();
    fs::remove_dir_all(machine.0.join("sys/devices/system/node")).unwrap();
    check();
}

#[test]
fn a_map_is_taken_as_it_is_or_refused_with_a_reason() {
    let machine = Machine::new("0-7", &[("0-3", 8, "10 20"), ("4-6", 8, "20 10")]);
    machine.write("sys/devices/system/cpu/online", "0-6");
    machine.allow("0-5", "0-1");
    let given = |nodes| Topology::given(machine.hardware(), nodes);
    let taken = given(vec![node([5, 0], None), node([1], Some(0)), node([2], Some(1))]).unwrap();
    assert_eq!(placed(&taken), [(vec![0, 5], 1), (vec![1], 0), (vec![2], 1)]);
    assert_eq!(placed(&given(vec![node([3], None), node([3], None)]).unwrap()).len(), 2);
    let refusals = [
        (vec![], TopologyError::Nodes),
        (vec![node([0], None), node([], None)], TopologyError::NodeWithoutCpus(1)),
        (vec![node([8], None)], TopologyError::UnknownCpu(Cpu(8))),
        (vec![node([7], None)], TopologyError::OfflineCpu(Cpu(7))),
        (vec![node([6], None)], TopologyError::ForbiddenCpu(Cpu(6))),
        (vec![node([1, 1], None)], TopologyError::CpuTwice(Cpu(1))),
        (vec![node([0, 1], None), node([1], None)], TopologyError::CpuTwice(Cpu(1))),
        (vec![node([0], Some(2))], TopologyError::UnknownNode(PhysicalNode(2))),
    ];
    for (nodes, reason) in refusals {
        assert_eq!(given(nodes).unwrap_err(), reason);
        assert!(!reason.to_string().contains('\n'));
    }
}

#[test]
fn a_cpu_that_a_map_leaves_out_uses_a_replica_with_memory_near_to_it() {
    let machine = Machine::new("0-7", &[("0-3", 8, "10 20"), ("4-7", 8, "20 10")]);
    let topology =
        Topology::given(machine.hardware(), vec![node([4], None), node([0], None), node([5], None)]).unwrap();
    let used: Vec<usize> = (0..8).map(|cpu| topology.node_of(Cpu(cpu), || 0)).collect();
    assert_eq!(used, [1, 1, 1, 1, 0, 2, 0, 2]);
    assert_eq!((topology.cpus(), topology.nodes_of(Cpu(6))), (cpus([0, 4, 5]), &[][..]));
    assert!(topology.node_of(Cpu(8), || 0) < 3);
}

#[test]
fn what_a_topology_says_can_be_given_back() {
    let machine = Machine::new("0-4", &[("0-2", 8, "10 20"), ("3-4", 8, "20 10")]);
    for count in 1..12 {
        let topology = Topology::divided(machine.hardware(), count).unwrap();
        let again = Topology::given(machine.hardware(), topology.nodes().to_vec()).unwrap();
        assert_eq!(again.nodes(), topology.nodes());
    }
}
