//! `nrfs.Scheduler`.

use ::scheduler::{
    Answer, CoreId, CoreState, CoreStatus, Errno, Machine, ProcessId, ProcessStatus, Reason, WriteOperation,
};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert::{self, Nodes, Number, os_error, value_error};
use crate::here::Here;

/// Gives cores to processes.
#[pyclass(frozen, module = "nrfs")]
pub struct Scheduler {
    service: Here<::scheduler::Scheduler>,
}

/// A core, as it is now.
#[pyclass(frozen, get_all, module = "nrfs")]
pub struct Core {
    core: usize,
    node: usize,
    online: bool,
    process: Option<u64>,
    executor: Option<u64>,
}

/// What a process wants and has.
#[pyclass(frozen, get_all, module = "nrfs")]
pub struct Process {
    wanted: usize,
    cores: Vec<usize>,
    cached_executors: usize,
    upcalls: usize,
}

/// What a process is told of one of its cores.
#[pyclass(frozen, get_all, module = "nrfs")]
pub struct Upcall {
    core: usize,
    executor: u64,
    given: bool,
    reason: Option<&'static str>,
}

impl From<CoreStatus> for Core {
    fn from(status: CoreStatus) -> Self {
        let (process, executor) = match status.state {
            CoreState::Running(process, executor) => (Some(process.0), Some(executor.0)),
            CoreState::Offline | CoreState::Idle => (None, None),
        };
        let online = status.state != CoreState::Offline;
        Self { core: status.core.0, node: status.node.0, online, process, executor }
    }
}

impl From<ProcessStatus> for Process {
    fn from(status: ProcessStatus) -> Self {
        let ProcessStatus { wanted, cores, cached_executors, upcalls } = status;
        Self { wanted, cores: cores.into_iter().map(|core| core.0).collect(), cached_executors, upcalls }
    }
}

impl From<::scheduler::Upcall> for Upcall {
    fn from(upcall: ::scheduler::Upcall) -> Self {
        let (core, executor, reason) = match upcall {
            ::scheduler::Upcall::Given { core, executor } => (core, executor, None),
            ::scheduler::Upcall::Taken { core, executor, reason } => (core, executor, Some(reason)),
        };
        let name = |reason| match reason {
            Reason::Share => "share",
            Reason::Offline => "offline",
            Reason::Failed => "failed",
        };
        Self { core: core.0, executor: executor.0, given: reason.is_none(), reason: reason.map(name) }
    }
}

#[pymethods]
impl Core {
    fn __repr__(&self) -> String {
        let Self { core, node, online, .. } = self;
        let number = |value: Option<u64>| value.map_or("None".into(), |value| value.to_string());
        let (process, executor) = (number(self.process), number(self.executor));
        let online = if *online { "True" } else { "False" };
        format!("Core(core={core}, node={node}, online={online}, process={process}, executor={executor})")
    }
}

#[pymethods]
impl Process {
    fn __repr__(&self) -> String {
        let Self { wanted, cores, cached_executors, upcalls } = self;
        format!("Process(wanted={wanted}, cores={cores:?}, cached_executors={cached_executors}, upcalls={upcalls})")
    }
}

#[pymethods]
impl Upcall {
    fn __repr__(&self) -> String {
        let Self { core, executor, given, reason } = self;
        let reason = reason.map_or("None".into(), |reason| format!("'{reason}'"));
        let given = if *given { "True" } else { "False" };
        format!("Upcall(core={core}, executor={executor}, given={given}, reason={reason})")
    }
}

impl Scheduler {
    /// Makes a change without the GIL; returns the answer as a Python object.
    fn change<'py>(&self, py: Python<'py>, operation: WriteOperation) -> PyResult<Bound<'py, PyAny>> {
        let service = self.service.get()?;
        match py.detach(|| service.change(operation)).map_err(os_error)? {
            Answer::Done => Ok(py.None().into_bound(py)),
            Answer::Process(process) => process.0.into_bound_py_any(py),
            Answer::Cores(count) | Answer::Executors(count) => count.into_bound_py_any(py),
            Answer::Upcalls(upcalls) => upcalls.into_iter().map(Upcall::from).collect::<Vec<_>>().into_bound_py_any(py),
        }
    }

    fn read<R: Send>(&self, py: Python<'_>, read: impl FnOnce(&Machine) -> Result<R, Errno> + Send) -> PyResult<R> {
        let service = self.service.get()?;
        py.detach(|| service.read(read)).map_err(os_error)
    }
}

#[pymethods]
impl Scheduler {
    #[new]
    #[pyo3(
        signature = (*, nodes = Nodes::Named("auto".into()), cores = None),
        text_signature = "(*, nodes='auto', cores=None)"
    )]
    fn new(nodes: Nodes, cores: Option<Number<usize>>) -> PyResult<Self> {
        let cores = cores.map(|Number(cores)| cores);
        let service = ::scheduler::Scheduler::new(nodes.topology()?, cores).map_err(value_error)?;
        Ok(Self { service: Here::new(service) })
    }

    fn create<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.change(py, WriteOperation::Create)
    }

    fn exit<'py>(&self, py: Python<'py>, process: u64) -> PyResult<Bound<'py, PyAny>> {
        self.change(py, WriteOperation::Exit(ProcessId(process)))
    }

    fn request<'py>(&self, py: Python<'py>, process: u64, cores: usize) -> PyResult<Bound<'py, PyAny>> {
        self.change(py, WriteOperation::Request { process: ProcessId(process), cores })
    }

    fn release<'py>(&self, py: Python<'py>, process: u64, core: usize) -> PyResult<Bound<'py, PyAny>> {
        self.change(py, WriteOperation::Release { process: ProcessId(process), core: CoreId(core) })
    }

    fn upcalls<'py>(&self, py: Python<'py>, process: u64) -> PyResult<Bound<'py, PyAny>> {
        self.change(py, WriteOperation::TakeUpcalls(ProcessId(process)))
    }

    fn free_executors<'py>(&self, py: Python<'py>, process: u64) -> PyResult<Bound<'py, PyAny>> {
        self.change(py, WriteOperation::FreeExecutors(ProcessId(process)))
    }

    fn tick<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.change(py, WriteOperation::Tick)
    }

    fn offline<'py>(&self, py: Python<'py>, core: usize) -> PyResult<Bound<'py, PyAny>> {
        self.change(py, WriteOperation::Offline(CoreId(core)))
    }

    fn fail<'py>(&self, py: Python<'py>, core: usize) -> PyResult<Bound<'py, PyAny>> {
        self.change(py, WriteOperation::Fail(CoreId(core)))
    }

    fn online<'py>(&self, py: Python<'py>, core: usize) -> PyResult<Bound<'py, PyAny>> {
        self.change(py, WriteOperation::Online(CoreId(core)))
    }

    fn executor(&self, py: Python<'_>, core: usize) -> PyResult<Option<u64>> {
        let state = self.read(py, |machine| machine.state(CoreId(core)))?;
        Ok(if let CoreState::Running(_, executor) = state { Some(executor.0) } else { None })
    }

    fn cores(&self, py: Python<'_>) -> PyResult<Vec<Core>> {
        let cores = self.read(py, |machine| Ok(machine.cores()))?;
        Ok(cores.into_iter().map(Core::from).collect())
    }

    fn processes(&self, py: Python<'_>) -> PyResult<Vec<u64>> {
        let processes = self.read(py, |machine| Ok(machine.processes()))?;
        Ok(processes.into_iter().map(|process| process.0).collect())
    }

    fn process(&self, py: Python<'_>, process: u64) -> PyResult<Process> {
        self.read(py, |machine| machine.status(ProcessId(process))).map(Process::from)
    }

    fn executors_made(&self, py: Python<'_>) -> PyResult<u64> {
        self.read(py, |machine| Ok(machine.executors_made()))
    }

    fn verify<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let service = self.service.get()?;
        let (position, digests) = py.detach(|| service.verify());
        convert::verification(py, "scheduler", position, &digests)
    }
}
