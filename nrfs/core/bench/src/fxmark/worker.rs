//! One core, and what it does in each workload.
//!
//! What uses something up, files or blocks, does so many operations in a *phase*; so does what makes some, so that no
//! figure depends on how much room there is. Before each phase all is as in the beginning again, which is not measured.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::calls::{Calls, Nothing};
use super::paths::{self, BRANCHES, Numbered, SHARED, SHARED_FILE, Tree};
use super::{Failure, Setting, Workload};
use crate::page::{self, PAGE};
use crate::random::Random;

/// Operations between two looks at the clock, as in NrOS's mix.
const BATCH: u64 = 64;

/// The most operations of a phase that uses something up, or makes something. A multiple of [`BATCH`].
const PHASE: u64 = 16_384;

/// How long files are made for a phase that uses them up. On a slow file system there are fewer.
const MAKING: Duration = Duration::from_secs(1);

/// Files in a directory that is listed, of each core.
const LISTED: u64 = 1024;

/// Bytes of the shared file for each core.
const REGION: u64 = 8 << 20;

/// Bytes of a block that are compared with what must be there.
const PART: usize = 512;

/// Bytes of an operation of the mix: less than a page, as NrOS's.
const MIX: usize = 1008;

/// What a core has done in a phase.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Lap {
    /// How many operations.
    pub operations: u64,
    /// How long they took together.
    pub nanoseconds: u64,
}

/// One core.
pub struct Worker<C: Calls> {
    calls: C,
    setting: Setting,
    core: usize,
    random: Random,
    /// Whether no phase was before.
    is_new: bool,
    file: Option<C::File>,
    /// Where its block is in that file.
    place: u64,
    /// How many files there are for a phase that uses them up.
    files: u64,
    /// How many operations of the phase are done; for a [`Workload::MWRL`], of all phases.
    done: u64,
    /// Where it makes files, and unlinks them, or moves them to.
    names: Numbered,
    /// Where it moves files from.
    old: Numbered,
    /// The directory of `names`, or the one that it lists.
    directory: Vec<u8>,
    tree: Tree,
    /// What it asks for.
    asked: Vec<u8>,
    /// What is read goes here.
    read: Vec<u8>,
    /// What is written; and what is there where nothing is.
    page: [u8; PAGE],
}

/// Makes what the cores of a measurement find.
///
/// # Errors
///
/// A call fails.
pub fn found(calls: &impl Calls, setting: &Setting) -> Result<(), Failure> {
    make_directory(calls, SHARED)?;
    for core in 0..setting.cores {
        make_directory(calls, &paths::own(core))?;
    }
    match setting.workload {
        Workload::DRBL | Workload::DWOL | Workload::DWSL => {
            (0..setting.cores).try_for_each(|core| fill(calls, &paths::own_file(core), core, 0..PAGE as u64))
        }
        Workload::DRBM | Workload::DWOM => (0..setting.cores).try_for_each(|core| {
            let begin = core as u64 * REGION;
            fill(calls, SHARED_FILE, core, begin..begin + REGION)
        }),
        Workload::DRBH => fill(calls, SHARED_FILE, 0, 0..PAGE as u64),
        Workload::MRPL => (0..setting.cores).try_for_each(|core| {
            let (directories, file) = paths::deep(core);
            directories.iter().try_for_each(|path| make_directory(calls, path))?;
            create(calls, &file)
        }),
        Workload::MRPM | Workload::MRPH => {
            let (directories, files) = Tree::all();
            directories.iter().try_for_each(|path| make_directory(calls, path))?;
            files.iter().try_for_each(|path| create(calls, path))
        }
        Workload::MRDL => (0..setting.cores).try_for_each(|core| {
            let mut names = Numbered::new(&format!("{core:04}/"));
            (0..LISTED).try_for_each(|number| create(calls, names.at(number)))
        }),
        Workload::MRDM => {
            let mut names = Numbered::new("shared/");
            (0..LISTED * setting.cores as u64).try_for_each(|number| create(calls, names.at(number)))
        }
        Workload::MWRL => {
            (0..setting.cores).try_for_each(|core| create(calls, Numbered::new(&format!("{core:04}/")).at(0)))
        }
        Workload::Mix => {
            let mut names = Numbered::new("shared/");
            let files = 0..setting.open_files as u64;
            files.into_iter().try_for_each(|number| fill(calls, names.at(number), 0, 0..setting.file_size))
        }
        Workload::DWAL
        | Workload::DWTL
        | Workload::MWCL
        | Workload::MWCM
        | Workload::MWUL
        | Workload::MWUM
        | Workload::MWRM => Ok(()),
    }
}

/// Bytes that a measurement has in files at most.
pub fn bytes(setting: &Setting) -> u64 {
    let each = match setting.workload {
        Workload::DRBM | Workload::DWOM => REGION,
        Workload::DWAL | Workload::DWTL => PHASE * PAGE as u64,
        Workload::Mix => return setting.file_size.saturating_mul(setting.open_files as u64),
        _ => PAGE as u64,
    };
    each * setting.cores as u64
}

/// Nanoseconds that the harness itself takes for an operation: a workload on [`Nothing`].
pub fn harness(setting: &Setting) -> f64 {
    let names = LISTED * if setting.workload == Workload::MRDM { setting.cores as u64 } else { 1 } + 2;
    let mut worker = Worker::new(Nothing { names, size: 0 }, *setting, 0);
    // What nothing is read into is what is expected.
    let length = worker.read.len();
    worker.read.copy_from_slice(&page::of(0)[..length]);
    let mut measure = || {
        worker.prepare().ok()?;
        let began = Instant::now();
        let mut operations = 0;
        for _ in 0..PHASE / BATCH {
            operations += worker.batch().ok()?;
            std::hint::black_box(began.elapsed());
        }
        Some(began.elapsed().as_nanos() as f64 / operations as f64)
    };
    // The least, as anything else that runs only adds.
    (0..20).filter_map(|_| measure()).fold(f64::INFINITY, f64::min)
}

impl<C: Calls> Worker<C> {
    /// The core of this number, where all has been [`found`].
    pub fn new(calls: C, setting: Setting, core: usize) -> Self {
        let (workload, own) = (setting.workload, format!("{core:04}/"));
        let mine = format!("shared/{}", paths::mine(core));
        let is_shared = matches!(workload, Workload::MWCM | Workload::MWUM | Workload::MWRM | Workload::MRDM);
        let asked = if workload == Workload::MRPL { paths::deep(core).1 } else { Tree::new().file(0).to_owned() };
        let place = if matches!(workload, Workload::DRBM | Workload::DWOM) { core as u64 * REGION } else { 0 };
        let mut page = page::of(if workload == Workload::DRBH { 0 } else { core });
        page::mark(&mut page, place);
        Self {
            calls,
            setting,
            core,
            random: Random::of_thread(core),
            is_new: true,
            file: None,
            place,
            done: 0,
            names: Numbered::new(if is_shared { &mine } else { &own }),
            old: Numbered::new(&own),
            directory: if is_shared { SHARED.to_owned() } else { paths::own(core) },
            tree: Tree::new(),
            asked,
            read: vec![0; if workload == Workload::Mix { MIX } else { PAGE }],
            files: PHASE,
            page,
        }
    }

    /// Makes all ready for a phase.
    ///
    /// # Errors
    ///
    /// A call fails.
    pub fn prepare(&mut self) -> Result<(), Failure> {
        let (is_new, before) = (std::mem::take(&mut self.is_new), self.done);
        match self.setting.workload {
            Workload::DRBL | Workload::DWOL | Workload::DWSL => self.open(&paths::own_file(self.core))?,
            Workload::DRBM | Workload::DRBH | Workload::DWOM => self.open(SHARED_FILE)?,
            Workload::DWAL => {
                self.open(&paths::own_file(self.core))?;
                self.file(|calls, file| calls.truncate(file, 0), "ftruncate")?;
                self.done = 0;
            }
            Workload::DWTL => {
                let path = paths::own_file(self.core);
                self.open(&path)?;
                fill(&self.calls, &path, self.core, 0..PHASE * PAGE as u64)?;
                self.done = 0;
            }
            Workload::MWCL | Workload::MWCM => {
                (0..before).try_for_each(|number| unlink(&self.calls, self.names.at(number)))?;
                self.done = 0;
            }
            Workload::MWUL | Workload::MWUM => {
                // What is left of the last phase is not made again.
                if is_new {
                    self.files = make(&self.calls, &mut self.names)?;
                } else {
                    (0..before).try_for_each(|number| create(&self.calls, self.names.at(number)))?;
                }
                self.done = 0;
            }
            Workload::MWRM => {
                if is_new {
                    self.files = make(&self.calls, &mut self.old)?;
                } else {
                    (0..before)
                        .try_for_each(|number| rename(&self.calls, self.names.at(number), self.old.at(number)))?;
                }
                self.done = 0;
            }
            Workload::Mix => {
                let number = (self.core % self.setting.open_files) as u64;
                self.open(Numbered::new("shared/").at(number))?;
            }
            Workload::MRPL | Workload::MRPM | Workload::MRPH | Workload::MRDL | Workload::MRDM | Workload::MWRL => {}
        }
        Ok(())
    }

    /// Does operations until the time is over, or the phase is.
    ///
    /// # Errors
    ///
    /// A call fails, or brings something wrong.
    pub fn work(&mut self, time: Duration) -> Result<Lap, Failure> {
        let mut operations = 0;
        let began = Instant::now();
        loop {
            operations += self.batch()?;
            let elapsed = began.elapsed();
            if elapsed >= time || self.is_used_up() {
                return Ok(Lap { operations, nanoseconds: elapsed.as_nanos() as u64 });
            }
        }
    }

    /// Whether all that was done in the phase is there.
    ///
    /// # Errors
    ///
    /// It is not, or a call fails.
    pub fn check(&mut self) -> Result<(), Failure> {
        let (done, place) = (self.done, self.place);
        match self.setting.workload {
            Workload::DWOL | Workload::DWOM | Workload::DWSL => self.check_pages(place, 1),
            Workload::DWAL => self.check_size(done).and_then(|()| self.check_pages(0, done)),
            Workload::DWTL => self.check_size(PHASE - done).and_then(|()| self.check_pages(0, PHASE - done)),
            Workload::MWCL | Workload::MWCM | Workload::MWRM => self.check_names(done),
            Workload::MWUL | Workload::MWUM => self.check_names(self.files - done),
            Workload::MWRL => ask(&self.calls, self.names.at(done)).map(drop),
            Workload::DRBL
            | Workload::DRBM
            | Workload::DRBH
            | Workload::MRPL
            | Workload::MRPM
            | Workload::MRPH
            | Workload::MRDL
            | Workload::MRDM
            | Workload::Mix => Ok(()),
        }
    }

    /// Does some operations; returns how many.
    fn batch(&mut self) -> Result<u64, Failure> {
        match self.setting.workload {
            Workload::DRBL | Workload::DRBM | Workload::DRBH => self.reads(),
            Workload::DWAL => self.appends(),
            Workload::DWOL | Workload::DWOM => self.overwrites(),
            Workload::DWSL => self.syncs(),
            Workload::DWTL => self.cuts(),
            Workload::MRPL | Workload::MRPH => self.asks(),
            Workload::MRPM => self.asks_for_any(),
            Workload::MRDL | Workload::MRDM => self.lists(),
            Workload::MWCL | Workload::MWCM => self.next(|calls, names, _, number| create(calls, names.at(number))),
            Workload::MWUL | Workload::MWUM => self.next(|calls, names, _, number| unlink(calls, names.at(number))),
            Workload::MWRL => {
                self.next(|calls, names, old, number| rename(calls, old.at(number), names.at(number + 1)))
            }
            Workload::MWRM => self.next(|calls, names, old, number| rename(calls, old.at(number), names.at(number))),
            Workload::Mix => self.mixes(),
        }
    }

    /// Whether the phase has to end.
    fn is_used_up(&self) -> bool {
        let counts = self.setting.workload != Workload::MWRL;
        counts && self.done >= self.files
    }

    fn reads(&mut self) -> Result<u64, Failure> {
        let file = self.file.as_ref().ok_or(NOT_OPEN)?;
        let (buffer, place) = (&mut self.read[..PAGE], self.place);
        for _ in 0..BATCH {
            page::unmark(buffer);
            let read = self.calls.read(file, buffer, place).map_err(refused("read"))?;
            check(read == PAGE && page::is_marked(buffer, place), "read")?;
        }
        // Any part of what was read last: to compare all would be a hundredth of what is measured.
        let part = self.random.below((PAGE / PART) as u64) as usize * PART..;
        check(buffer[part.clone()][..PART] == self.page[part][..PART], "read")?;
        Ok(BATCH)
    }

    fn overwrites(&mut self) -> Result<u64, Failure> {
        let file = self.file.as_ref().ok_or(NOT_OPEN)?;
        for _ in 0..BATCH {
            let written = self.calls.write(file, &self.page, self.place).map_err(refused("write"))?;
            check(written == PAGE, "write")?;
        }
        Ok(BATCH)
    }

    fn appends(&mut self) -> Result<u64, Failure> {
        let file = self.file.as_ref().ok_or(NOT_OPEN)?;
        for _ in 0..BATCH {
            let end = self.done * PAGE as u64;
            page::mark(&mut self.page, end);
            let written = self.calls.write(file, &self.page, end).map_err(refused("write"))?;
            check(written == PAGE, "write")?;
            self.done += 1;
        }
        Ok(BATCH)
    }

    fn syncs(&mut self) -> Result<u64, Failure> {
        let file = self.file.as_ref().ok_or(NOT_OPEN)?;
        for _ in 0..BATCH {
            let written = self.calls.write(file, &self.page, self.place).map_err(refused("write"))?;
            check(written == PAGE, "write")?;
            self.calls.sync(file).map_err(refused("fsync"))?;
        }
        Ok(BATCH)
    }

    fn cuts(&mut self) -> Result<u64, Failure> {
        let file = self.file.as_ref().ok_or(NOT_OPEN)?;
        for _ in 0..BATCH {
            self.done += 1;
            self.calls.truncate(file, (PHASE - self.done) * PAGE as u64).map_err(refused("ftruncate"))?;
        }
        Ok(BATCH)
    }

    fn asks(&mut self) -> Result<u64, Failure> {
        for _ in 0..BATCH {
            check(ask(&self.calls, &self.asked)? == 0, "stat")?;
        }
        Ok(BATCH)
    }

    fn asks_for_any(&mut self) -> Result<u64, Failure> {
        for _ in 0..BATCH {
            let file = self.tree.file(self.random.below(BRANCHES.pow(paths::DEPTH as u32)));
            check(ask(&self.calls, file)? == 0, "stat")?;
        }
        Ok(BATCH)
    }

    /// Lists the directory once: each entry is an operation.
    fn lists(&mut self) -> Result<u64, Failure> {
        let mut entries = 0;
        self.calls.list(&self.directory, |_| entries += 1).map_err(refused("readdir"))?;
        let lists = if self.setting.workload == Workload::MRDM { self.setting.cores as u64 } else { 1 };
        check(entries == LISTED * lists + 2, "readdir")?;
        Ok(entries)
    }

    fn next(
        &mut self,
        mut operation: impl FnMut(&C, &mut Numbered, &mut Numbered, u64) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        for _ in 0..BATCH {
            operation(&self.calls, &mut self.names, &mut self.old, self.done)?;
            self.done += 1;
        }
        Ok(BATCH)
    }

    fn mixes(&mut self) -> Result<u64, Failure> {
        let file = self.file.as_ref().ok_or(NOT_OPEN)?;
        let (pages, writes) = (self.setting.file_size / PAGE as u64, self.setting.writes);
        let mut last = None;
        for _ in 0..BATCH {
            let offset = self.random.below(pages) * PAGE as u64;
            if self.random.below(100) < writes {
                page::mark(&mut self.page, offset);
                let written = self.calls.write(file, &self.page[..MIX], offset).map_err(refused("write"))?;
                check(written == MIX, "write")?;
            } else {
                let read = self.calls.read(file, &mut self.read, offset).map_err(refused("read"))?;
                check(read == MIX && page::is_marked(&self.read, offset), "read")?;
                last = Some(offset);
            }
        }
        if let Some(offset) = last {
            check(page::may_be_there(&self.read, offset, self.setting.cores), "read")?;
        }
        Ok(BATCH)
    }

    fn open(&mut self, path: &[u8]) -> Result<(), Failure> {
        if self.file.is_none() {
            self.file = Some(self.calls.open(path).map_err(refused("open"))?);
        }
        Ok(())
    }

    fn file<R>(&self, call: impl FnOnce(&C, &C::File) -> Result<R, Errno>, name: &'static str) -> Result<R, Failure> {
        call(&self.calls, self.file.as_ref().ok_or(NOT_OPEN)?).map_err(refused(name))
    }

    fn check_size(&self, blocks: u64) -> Result<(), Failure> {
        check(ask(&self.calls, &paths::own_file(self.core))? == blocks * PAGE as u64, "stat")
    }

    /// Whether these pages of its file, from an offset on, are as it wrote them.
    fn check_pages(&mut self, offset: u64, pages: u64) -> Result<(), Failure> {
        let file = self.file.as_ref().ok_or(NOT_OPEN)?;
        for offset in (offset..).step_by(PAGE).take(pages as usize) {
            let read = self.calls.read(file, &mut self.read, offset).map_err(refused("read"))?;
            check(read == PAGE && page::are_right(&self.read, offset, self.core..self.core + 1), "read")?;
        }
        Ok(())
    }

    /// Whether there are so many files of its own in the directory.
    fn check_names(&self, expected: u64) -> Result<(), Failure> {
        let (mut found, mine) = (0, paths::mine(self.core));
        let is_shared = self.directory == SHARED;
        let is_mine = |name: &[u8]| if is_shared { name.starts_with(mine.as_bytes()) } else { !name.starts_with(b".") };
        self.calls.list(&self.directory, |name| found += u64::from(is_mine(name))).map_err(refused("readdir"))?;
        check(found == expected, "readdir")
    }
}

const NOT_OPEN: Failure = Failure::Refused("open", Errno::BADF);

fn refused(call: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure::Refused(call, errno)
}

fn check(is_right: bool, call: &'static str) -> Result<(), Failure> {
    if is_right { Ok(()) } else { Err(Failure::Wrong(call)) }
}

fn make_directory(calls: &impl Calls, path: &[u8]) -> Result<(), Failure> {
    calls.make_directory(path).map_err(refused("mkdir"))
}

/// Makes files for a phase: [`PHASE`], or as many batches as it comes to in [`MAKING`]. Returns how many.
fn make(calls: &impl Calls, names: &mut Numbered) -> Result<u64, Failure> {
    let began = Instant::now();
    let mut files = 0;
    while files < PHASE && (files == 0 || began.elapsed() < MAKING) {
        (files..files + BATCH).try_for_each(|number| create(calls, names.at(number)))?;
        files += BATCH;
    }
    Ok(files)
}

fn create(calls: &impl Calls, path: &[u8]) -> Result<(), Failure> {
    calls.create(path).map_err(refused("create"))
}

fn unlink(calls: &impl Calls, path: &[u8]) -> Result<(), Failure> {
    calls.unlink(path).map_err(refused("unlink"))
}

fn rename(calls: &impl Calls, from: &[u8], to: &[u8]) -> Result<(), Failure> {
    calls.rename(from, to).map_err(refused("rename"))
}

fn ask(calls: &impl Calls, path: &[u8]) -> Result<u64, Failure> {
    calls.stat(path).map_err(refused("stat"))
}

/// Writes a part of a file, page by page, as `writer`.
fn fill(calls: &impl Calls, path: &[u8], writer: usize, part: std::ops::Range<u64>) -> Result<(), Failure> {
    let file = calls.open(path).map_err(refused("open"))?;
    let mut page = page::of(writer);
    for offset in part.step_by(PAGE) {
        page::mark(&mut page, offset);
        check(calls.write(&file, &page, offset).map_err(refused("write"))? == PAGE, "write")?;
    }
    Ok(())
}
