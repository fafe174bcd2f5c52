//! `nrfs.Topology`: which CPUs and which memory belong to each node that replicas are on.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use ::filesystem::{Cpu, HardwareNode, Node, PhysicalNode, TopologyError};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList};

use crate::convert::{Amount, Number, error_text, value_error};

/// A map that is larger than this is none.
const MAP_BYTES_MAX: u64 = 16 << 20;

/// The keys of a replica in a map. Those behind the first two are only for readers.
const KEYS: [&str; 4] = ["cpus", "physical", "node", "memory_bytes"];

/// Where replicas are. It is only data: a forked process can use it, too.
#[pyclass(frozen, module = "nrfs")]
pub struct Topology {
    topology: ::filesystem::Topology,
}

/// A node to replicate on.
#[pyclass(frozen, get_all, module = "nrfs")]
pub struct TopologyNode {
    node: usize,
    cpus: Vec<usize>,
    physical: usize,
    memory_bytes: u64,
}

/// A NUMA node of the machine.
#[pyclass(frozen, get_all, module = "nrfs")]
pub struct MachineNode {
    node: usize,
    cpus: Vec<usize>,
    memory_bytes: u64,
    free_bytes: u64,
    usable: bool,
    distances: Vec<u32>,
    replicas: Vec<usize>,
}

impl Topology {
    fn of(made: Result<::filesystem::Topology, TopologyError>) -> PyResult<Self> {
        Ok(Self { topology: made.map_err(value_error)? })
    }

    /// What the services take.
    pub fn to_replicate_on(&self) -> ::filesystem::Topology {
        self.topology.clone()
    }
}

fn numbers(cpus: &[Cpu]) -> Vec<usize> {
    cpus.iter().map(|cpu| cpu.0).collect()
}

#[pymethods]
impl Topology {
    #[staticmethod]
    fn machine() -> PyResult<Self> {
        Self::of(::filesystem::Topology::machine())
    }

    #[staticmethod]
    fn emulated(nodes: Number<i64>) -> PyResult<Self> {
        Self::of(::filesystem::Topology::emulated(usize::try_from(nodes.0).unwrap_or(0)))
    }

    #[staticmethod]
    fn from_file(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAP_BYTES_MAX + 1).read_to_end(&mut text));
        read.map_err(|error| unreadable(&error, path))?;
        if text.len() as u64 > MAP_BYTES_MAX {
            return Err(PyValueError::new_err("the file is too large for a map"));
        }
        let text = String::from_utf8(text).map_err(|_| PyValueError::new_err("the map is not JSON: it is no text"))?;
        Self::from_json(py, &text)
    }

    #[staticmethod]
    fn from_json(py: Python<'_>, text: &str) -> PyResult<Self> {
        let parsed = py.import("json")?.call_method1("loads", (text,));
        let map = parsed.map_err(|error| PyValueError::new_err(format!("the map is not JSON: {}", error.value(py))))?;
        Self::of(::filesystem::Topology::explicit(replicas(&map)?))
    }

    #[getter]
    fn nodes(&self) -> Vec<TopologyNode> {
        let of = |(node, Node { cpus, .. }): (usize, &Node)| {
            let host = self.topology.host_of(node);
            TopologyNode { node, cpus: numbers(cpus), physical: host.node.0, memory_bytes: host.memory }
        };
        self.topology.nodes().iter().enumerate().map(of).collect()
    }

    #[getter]
    fn machine_nodes(&self) -> Vec<MachineNode> {
        let replicas = 0..self.topology.nodes().len();
        let of = |of: &HardwareNode| MachineNode {
            node: of.node.0,
            cpus: numbers(&of.cpus),
            memory_bytes: of.memory,
            free_bytes: of.free,
            usable: of.is_usable,
            distances: of.distances.clone(),
            replicas: replicas.clone().filter(|&replica| self.topology.host_of(replica).node == of.node).collect(),
        };
        self.topology.hardware().nodes.iter().map(of).collect()
    }

    #[getter]
    fn allowed_cpus(&self) -> Vec<usize> {
        numbers(&self.topology.hardware().allowed)
    }

    #[getter]
    fn offline_cpus(&self) -> Vec<usize> {
        numbers(&self.topology.hardware().offline)
    }

    fn replica_bytes(&self, size: Amount) -> PyResult<u64> {
        Ok(size.size()?.bytes(&self.topology))
    }

    fn as_dictionary<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let replicas = self.nodes().into_iter().map(|node| {
            let dict = PyDict::new(py);
            dict.set_item("node", node.node)?;
            dict.set_item("cpus", node.cpus)?;
            dict.set_item("physical", node.physical)?;
            dict.set_item("memory_bytes", node.memory_bytes)?;
            Ok(dict)
        });
        let nodes = self.machine_nodes().into_iter().map(|node| {
            let dict = PyDict::new(py);
            dict.set_item("node", node.node)?;
            dict.set_item("cpus", node.cpus)?;
            dict.set_item("memory_bytes", node.memory_bytes)?;
            dict.set_item("free_bytes", node.free_bytes)?;
            dict.set_item("usable", node.usable)?;
            dict.set_item("distances", node.distances)?;
            dict.set_item("replicas", node.replicas)?;
            Ok(dict)
        });
        let machine = PyDict::new(py);
        machine.set_item("nodes", nodes.collect::<PyResult<Vec<_>>>()?)?;
        machine.set_item("allowed_cpus", self.allowed_cpus())?;
        machine.set_item("offline_cpus", self.offline_cpus())?;
        let dict = PyDict::new(py);
        dict.set_item("replicas", replicas.collect::<PyResult<Vec<_>>>()?)?;
        dict.set_item("machine", machine)?;
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        let nodes = self.topology.nodes().iter().enumerate();
        let nodes = nodes.map(|(node, Node { cpus, .. })| {
            format!("CPUs {:?} on node {}", numbers(cpus), self.topology.host_of(node).node.0)
        });
        format!("Topology({})", nodes.collect::<Vec<_>>().join(", "))
    }
}

/// The `OSError` of a file that cannot be read, with its path.
fn unreadable(error: &io::Error, path: PathBuf) -> PyErr {
    let code = error.raw_os_error().unwrap_or(libc::EIO);
    PyOSError::new_err((code, error_text(code), path.into_os_string()))
}

/// The replicas of a map, as far as its form says.
fn replicas(map: &Bound<'_, PyAny>) -> PyResult<Vec<Node>> {
    let wrong = || PyValueError::new_err("the map has no list 'replicas'");
    let map = map.cast::<PyDict>().map_err(|_| wrong())?;
    let replicas = map.get_item("replicas")?.ok_or_else(wrong)?;
    let replicas = replicas.cast::<PyList>().map_err(|_| wrong())?;
    replicas.iter().enumerate().map(|(number, replica)| one(number, &replica)).collect()
}

fn one(number: usize, replica: &Bound<'_, PyAny>) -> PyResult<Node> {
    let wrong = |what: &str| PyValueError::new_err(format!("replica {number} {what}"));
    let replica = replica.cast::<PyDict>().map_err(|_| wrong("is no object"))?;
    for key in replica.keys() {
        let key: String = key.extract()?;
        if !KEYS.contains(&key.as_str()) {
            return Err(wrong(&format!("has {key:?}, which means nothing here")));
        }
    }
    let cpus = replica.get_item("cpus")?.ok_or_else(|| wrong("has no list 'cpus'"))?;
    let cpus = cpus.cast::<PyList>().map_err(|_| wrong("has no list 'cpus'"))?;
    let cpus = cpus.iter().map(|cpu| index(&cpu).map(Cpu).ok_or_else(|| wrong("has a CPU that is no number")));
    let physical = replica.get_item("physical")?.filter(|physical| !physical.is_none());
    let physical =
        physical.map(|node| index(&node).map(PhysicalNode).ok_or_else(|| wrong("is on a node that is no number")));
    Ok(Node { cpus: cpus.collect::<PyResult<_>>()?, physical: physical.transpose()? })
}

/// A number from 0; for Python, `True` is one, too.
fn index(object: &Bound<'_, PyAny>) -> Option<usize> {
    if object.is_instance_of::<PyBool>() { None } else { object.extract().ok() }
}
