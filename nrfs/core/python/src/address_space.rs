//! `nrfs.AddressSpace`.

use std::sync::Arc;

use ::vm::{
    Area, Configuration, ConfigurationError, CoreId, Error, NodeId, PAGE_SHIFT, PageSize, Placement, Rights, Run,
    ViewError,
};
use pyo3::exceptions::{PyIndexError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyDict, PyList};

use crate::convert::{self, Nodes, Number, copied, value_error};
use crate::here::Here;

/// A node-replicated address space.
#[pyclass(frozen, module = "nrfs")]
pub struct AddressSpace {
    service: Here<Arc<::vm::AddressSpace>>,
}

/// One core of an address space.
#[pyclass(frozen, module = "nrfs")]
pub struct AddressSpaceCore {
    service: Here<Arc<::vm::AddressSpace>>,
    core: CoreId,
}

/// The mapping of an address.
#[pyclass(frozen, get_all, module = "nrfs")]
pub struct Mapping {
    address: u64,
    page: u64,
    frame: u64,
    physical: u64,
    rights: String,
}

/// A frame that can be mapped at many addresses.
#[pyclass(frozen, module = "nrfs")]
pub struct Frame {
    /// The address space that it belongs to.
    service: Here<Arc<::vm::AddressSpace>>,
    run: Run,
}

/// The base object of the numpy array that [`AddressSpace::view`] returns. The array keeps it alive.
#[pyclass(frozen, module = "nrfs")]
struct View(Here<::vm::View>);

/// An argument of `map`. The more frequent type is tried first, as a failed conversion costs a microsecond.
#[derive(FromPyObject)]
enum FrameOrSize<'py> {
    Size(u64),
    Frame(PyRef<'py, Frame>),
}

/// The fields of a structured array, packed.
type Fields = &'static [(&'static str, &'static str)];

const REGION: Fields = &[("address", "<u8"), ("length", "<u8"), ("rights", "u1")];
const PAGE: Fields = &[("address", "<u8"), ("page", "<u8"), ("frame", "<u8"), ("rights", "u1"), ("owned", "?")];
const RESOLVED: Fields = &[("mapped", "?"), ("rights", "u1"), ("page", "<u4"), ("physical", "<u8")];

/// Bytes in a record of [`RESOLVED`].
const RESOLVED_BYTES: usize = 14;

#[pymethods]
impl Mapping {
    fn __repr__(&self) -> String {
        let Self { address, page, frame, physical, rights } = self;
        format!(
            "Mapping(address={address:#x}, page={page}, frame={frame:#x}, physical={physical:#x}, rights='{rights}')"
        )
    }
}

#[pymethods]
impl Frame {
    #[getter]
    fn address(&self) -> u64 {
        self.run.first << PAGE_SHIFT
    }

    #[getter]
    fn size(&self) -> u64 {
        self.run.frames << PAGE_SHIFT
    }

    fn __repr__(&self) -> String {
        format!("Frame(address={:#x}, size={})", self.address(), self.size())
    }
}

#[pymethods]
impl View {
    /// An array of bytes at the view's address, by numpy's array interface, version 3.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let view = self.0.get()?;
        let dict = PyDict::new(py);
        dict.set_item("version", 3)?;
        dict.set_item("typestr", "|u1")?;
        dict.set_item("shape", (view.len(),))?;
        dict.set_item("data", (view.base().addr().get(), !view.is_writable()))?;
        Ok(dict)
    }
}

impl AddressSpace {
    /// Calls the service without the GIL, on the core that stands for this thread's CPU.
    fn call<R: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&::vm::AddressSpace, CoreId) -> Result<R, Error> + Send,
    ) -> PyResult<R> {
        let service = self.service.get()?;
        py.detach(|| call(service, service.core_here())).map_err(refused)
    }
}

#[pymethods]
impl AddressSpace {
    #[new]
    #[pyo3(
        signature = (*, nodes = Nodes::Named("auto".into()), logs = Number(4), cores = None, memory = Number(1 << 30),
                     backed = false),
        text_signature = "(*, nodes='auto', logs=4, cores=None, memory=1073741824, backed=False)"
    )]
    fn new(
        nodes: Nodes,
        logs: Number<usize>,
        cores: Option<Number<usize>>,
        memory: Number<u64>,
        backed: bool,
    ) -> PyResult<Self> {
        let (topology, cores) = (nodes.topology()?, cores.map(|Number(cores)| cores));
        let frames_per_node = memory.0 >> PAGE_SHIFT;
        let configuration = Configuration { topology, logs: logs.0, cores, frames_per_node, backed };
        match ::vm::AddressSpace::new(configuration) {
            Ok(service) => Ok(Self { service: Here::new(Arc::new(service)) }),
            Err(ConfigurationError::Memory(error)) => Err(error.into()),
            Err(error) => Err(value_error(error)),
        }
    }

    #[pyo3(signature = (va, frame_or_size, *, page = "4K", rights = "rw-", replace = false))]
    fn map(
        &self,
        py: Python<'_>,
        va: u64,
        frame_or_size: FrameOrSize<'_>,
        page: &str,
        rights: &str,
        replace: bool,
    ) -> PyResult<()> {
        let rights = parse_rights(rights)?;
        let placement = placement(replace);
        match frame_or_size {
            FrameOrSize::Size(size) => {
                let page = parse_page(page)?;
                self.call(py, |space, core| space.map(core, &Area::new(va, size)?, page, rights, placement))
            }
            FrameOrSize::Frame(frame) => {
                if !Arc::ptr_eq(frame.service.get()?, self.service.get()?) {
                    return Err(PyValueError::new_err("the frame is another address space's"));
                }
                let frame = frame.run;
                let pages = frame.frames;
                let page = PageSize::ALL.into_iter().find(|page| page.pages() == pages).unwrap_or(PageSize::Small4K);
                self.call(py, |space, core| {
                    space.map_frame(core, &Area::new(va, page.bytes())?, page, frame, rights, placement)
                })
            }
        }
    }

    #[pyo3(signature = (addresses, *, page = "4K", rights = "rw-", replace = false))]
    fn map_many(
        &self,
        py: Python<'_>,
        addresses: &Bound<'_, PyAny>,
        page: &str,
        rights: &str,
        replace: bool,
    ) -> PyResult<()> {
        let (addresses, page, rights) = (copied(py, addresses)?, parse_page(page)?, parse_rights(rights)?);
        self.call(py, |space, core| space.map_many(core, &addresses, page, rights, placement(replace)))
    }

    #[pyo3(signature = (addresses, *, page = "4K"))]
    fn unmap_many(&self, py: Python<'_>, addresses: &Bound<'_, PyAny>, page: &str) -> PyResult<()> {
        let (addresses, page) = (copied(py, addresses)?, parse_page(page)?);
        self.call(py, |space, core| space.unmap_many(core, &addresses, page))
    }

    fn view<'py>(&self, py: Python<'py>, va: u64, length: u64) -> PyResult<Bound<'py, PyAny>> {
        let area = Area::new(va, length).map_err(refused)?;
        let service = self.service.get()?;
        let view = py.detach(|| service.view(service.core_here(), &area)).map_err(|error| match error {
            ViewError::NotBacked => PyOSError::new_err((rustix::io::Errno::NODEV.raw_os_error(), error.to_string())),
            ViewError::Refused(error) => refused(error),
            ViewError::System(error) => error.into(),
        })?;
        py.import("numpy")?.getattr("asarray")?.call1((View(Here::new(view)),))
    }

    #[pyo3(signature = (page = "4K"))]
    fn frame(&self, py: Python<'_>, page: &str) -> PyResult<Frame> {
        let page = parse_page(page)?;
        let run = self.call(py, |space, core| space.frame(core, page))?;
        Ok(Frame { service: Here::new(Arc::clone(self.service.get()?)), run })
    }

    fn unmap(&self, py: Python<'_>, va: u64, length: u64) -> PyResult<()> {
        self.call(py, |space, core| space.unmap(core, &Area::new(va, length)?))
    }

    fn protect(&self, py: Python<'_>, va: u64, length: u64, rights: &str) -> PyResult<()> {
        let rights = parse_rights(rights)?;
        self.call(py, |space, core| space.protect(core, &Area::new(va, length)?, rights))
    }

    fn resolve(&self, py: Python<'_>, va: u64) -> PyResult<Mapping> {
        let mapping = self.call(py, |space, core| space.resolve(core, va))?;
        Ok(Mapping {
            address: mapping.start.address(),
            page: mapping.page.bytes(),
            frame: mapping.frame << PAGE_SHIFT,
            physical: mapping.physical(va),
            rights: mapping.rights.to_string(),
        })
    }

    fn resolve_many<'py>(&self, py: Python<'py>, addresses: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let addresses: Vec<u64> = copied(py, addresses)?;
        let records = PyByteArray::new_with(py, addresses.len() * RESOLVED_BYTES, |records| {
            self.call(py, |space, core| {
                space.resolve_many(core, &addresses, |number, mapping| {
                    if let Ok(mapping) = mapping {
                        let record = &mut records[number * RESOLVED_BYTES..][..RESOLVED_BYTES];
                        record[0] = 1;
                        record[1] = mapping.rights.bits();
                        record[2..6].copy_from_slice(&(mapping.page.bytes() as u32).to_le_bytes());
                        record[6..].copy_from_slice(&mapping.physical(addresses[number]).to_le_bytes());
                    }
                });
                Ok(())
            })
        })?;
        static DTYPE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        structured(records, &DTYPE, RESOLVED)
    }

    fn regions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let regions = self.call(py, |space, core| Ok(space.regions(core)))?;
        let mut bytes = Vec::new();
        for region in regions {
            bytes.extend(region.address.to_le_bytes());
            bytes.extend(region.length.to_le_bytes());
            bytes.push(region.rights.bits());
        }
        static DTYPE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        structured(PyByteArray::new(py, &bytes), &DTYPE, REGION)
    }

    fn page_table<'py>(&self, py: Python<'py>, node: usize) -> PyResult<Bound<'py, PyAny>> {
        if node >= self.service.get()?.nodes() {
            return Err(PyIndexError::new_err(format!("there is no node {node}")));
        }
        let pages = self.call(py, |space, _| Ok(space.page_table(space.first_core(NodeId(node)))))?;
        let mut bytes = Vec::new();
        for mapping in pages {
            bytes.extend(mapping.start.address().to_le_bytes());
            bytes.extend(mapping.page.bytes().to_le_bytes());
            bytes.extend((mapping.frame << PAGE_SHIFT).to_le_bytes());
            bytes.extend([mapping.rights.bits(), u8::from(mapping.owned)]);
        }
        static DTYPE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        structured(PyByteArray::new(py, &bytes), &DTYPE, PAGE)
    }

    fn core(&self, cpu: usize) -> PyResult<AddressSpaceCore> {
        let service = self.service.get()?;
        if cpu >= service.cores() {
            return Err(PyIndexError::new_err(format!("there is no core {cpu}")));
        }
        Ok(AddressSpaceCore { service: Here::new(Arc::clone(service)), core: CoreId(cpu) })
    }

    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let service = self.service.get()?;
        let cores = (0..service.cores()).map(CoreId).map(|core| {
            let statistics = service.statistics(core);
            let dict = PyDict::new(py);
            dict.set_item("core", core.0)?;
            dict.set_item("node", service.node_of(core).0)?;
            dict.set_item("hits", statistics.hits)?;
            dict.set_item("walks", statistics.walks)?;
            dict.set_item("behind", statistics.behind)?;
            dict.set_item("faults", statistics.faults)?;
            dict.set_item("shootdowns", statistics.shootdowns)?;
            dict.set_item("requests", statistics.requests)?;
            dict.set_item("batches", statistics.batches)?;
            dict.set_item("waited_ns", statistics.waited.as_nanos())?;
            dict.set_item("waited_longest_ns", statistics.waited_longest.as_nanos())?;
            Ok(dict)
        });
        let views = service.view_statistics().map(|statistics| {
            let dict = PyDict::new(py);
            dict.set_item("on_touch", statistics.on_touch)?;
            dict.set_item("views", statistics.views)?;
            dict.set_item("touches", statistics.touches)?;
            Ok::<_, PyErr>(dict)
        });
        let dict = PyDict::new(py);
        dict.set_item("bytes_free", service.frames_left() << PAGE_SHIFT)?;
        dict.set_item("cores", cores.collect::<PyResult<Vec<_>>>()?)?;
        dict.set_item("views", views.transpose()?)?;
        Ok(dict)
    }

    fn verify<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let all = self.call(py, |space, core| Ok(space.verify(core)))?;
        let all = all
            .iter()
            .enumerate()
            .map(|(log, one)| convert::verification(py, &format!("address space {log}"), one.position, &one.digests));
        PyList::new(py, all.collect::<PyResult<Vec<_>>>()?)
    }
}

impl AddressSpaceCore {
    fn access(&self, py: Python<'_>, va: u64, need: Rights) -> PyResult<u64> {
        let service = self.service.get()?;
        py.detach(|| service.access(self.core, va, need, |_| ())).map_err(refused)
    }
}

#[pymethods]
impl AddressSpaceCore {
    fn read(&self, py: Python<'_>, va: u64) -> PyResult<u64> {
        self.access(py, va, Rights::READ)
    }

    fn write(&self, py: Python<'_>, va: u64) -> PyResult<u64> {
        self.access(py, va, Rights::WRITE)
    }

    fn fetch(&self, py: Python<'_>, va: u64) -> PyResult<u64> {
        self.access(py, va, Rights::EXECUTE)
    }
}

/// A numpy array of packed records.
fn structured<'py>(
    records: Bound<'py, PyByteArray>,
    dtype: &PyOnceLock<Py<PyAny>>,
    fields: Fields,
) -> PyResult<Bound<'py, PyAny>> {
    let py = records.py();
    let numpy = py.import("numpy")?;
    let dtype = dtype
        .get_or_try_init(py, || Ok::<_, PyErr>(numpy.getattr("dtype")?.call1((fields.to_vec(),))?.unbind()))?
        .bind(py);
    if records.is_empty() {
        return numpy.getattr("empty")?.call1((0, dtype));
    }
    numpy.getattr("frombuffer")?.call1((records, dtype))
}

fn placement(replace: bool) -> Placement {
    if replace { Placement::Replace } else { Placement::NoReplace }
}

fn parse_page(page: &str) -> PyResult<PageSize> {
    match page {
        "4K" => Ok(PageSize::Small4K),
        "2M" => Ok(PageSize::Large2M),
        "1G" => Ok(PageSize::Huge1G),
        _ => Err(PyValueError::new_err(format!("bad page size '{page}': there are 4K, 2M and 1G"))),
    }
}

/// As `r-x`: each letter or a dash, in that order.
fn parse_rights(text: &str) -> PyResult<Rights> {
    let all = (0..8).map(Rights::from_bits);
    let known = all.into_iter().find(|rights| rights.to_string() == text);
    known.ok_or_else(|| PyValueError::new_err(format!("bad rights '{text}': give them as 'rwx', with - for none")))
}

fn refused(error: Error) -> PyErr {
    let errno = match error {
        Error::Unaligned | Error::NonCanonical => rustix::io::Errno::INVAL,
        Error::Overlapping => rustix::io::Errno::EXIST,
        Error::NotMapped => rustix::io::Errno::FAULT,
        Error::Denied => rustix::io::Errno::ACCESS,
        Error::NoMemory => rustix::io::Errno::NOMEM,
        Error::Viewed => rustix::io::Errno::BUSY,
    };
    PyOSError::new_err((errno.raw_os_error(), error.to_string()))
}
