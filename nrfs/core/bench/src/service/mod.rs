//! The file system service itself, without a mount, used by threads.
//!
//! A [`Service`] is a file system on some nodes with what a number of threads use of it: one file that all of them
//! share, and for each thread a file and a directory of its own. The content has as many logs as there are threads, and
//! the files of the threads are in different ones: so what they do with them commutes, and goes to different logs.
//!
//! - here: what there is, and whether it is still right when all is done;
//! - `user`: a thread, and how it does each [`Operation`].

mod user;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use filesystem::{
    Configuration, ContentPlace, Errno, Filesystem, Ino, Name, NewInode, NewNode, NodeId, Owner, Permissions, Size,
    Token, Topology,
};
use serde::{Deserialize, Serialize};

use crate::page::{self, PAGE};
use crate::throughput;
use user::User;

/// What threads do, each again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Reads so many bytes as [`Sizes`] says, from any page of the shared file on.
    ReadShared,
    /// The same, of the thread's own file.
    ReadApart,
    /// Writes any page of the shared file anew.
    WriteShared,
    /// The same, of the thread's own file.
    WriteApart,
    /// Makes an empty file with a new name in the thread's own directory, and unlinks it: both are one operation.
    Create,
    /// Asks for the attributes of the shared file.
    StatShared,
    /// The same, of the thread's own file.
    StatApart,
}

impl Operation {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::ReadShared,
        Self::ReadApart,
        Self::WriteShared,
        Self::WriteApart,
        Self::Create,
        Self::StatShared,
        Self::StatApart,
    ];

    /// Whether it is on the file that all threads share.
    fn is_shared(self) -> bool {
        matches!(self, Self::ReadShared | Self::WriteShared | Self::StatShared)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

/// Bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of one read: at least 1, and no more than a file has.
    pub read: usize,
    /// Of a file: whole pages of 4096, at least one.
    pub file: u64,
}

/// Why the figures are worth nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An operation did not do what it always can.
    Refused(Operation, Errno),
    /// An operation brought something else than what is there.
    Wrong(Operation),
    /// At the end there is something else in a file than what was written.
    Content,
    /// The replicas differ, in this log.
    Replicas(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(operation, errno) => write!(formatter, "{operation} was refused: {errno}"),
            Self::Wrong(operation) => write!(formatter, "{operation} brought something else than what is there"),
            Self::Content => formatter.write_str("what is in a file is not what was written"),
            Self::Replicas(log) => write!(formatter, "the replicas differ in log {log}"),
        }
    }
}

impl Error for Failure {}

/// A file system, with what its threads use.
pub struct Service {
    filesystem: Filesystem,
    sizes: Sizes,
    /// The file that all threads share.
    shared: Ino,
    /// By thread.
    own: Vec<Place>,
}

/// What a thread has for itself.
#[derive(Clone, Copy)]
struct Place {
    /// Its content is in another log than that of any other thread.
    file: Ino,
    directory: Ino,
}

impl Service {
    /// A file system on `nodes` emulated nodes for `threads` threads, at least one of each, and with as many logs for
    /// content as threads.
    ///
    /// # Errors
    ///
    /// There can be no such file system, or there is no room for the files.
    pub fn new(nodes: usize, threads: usize, sizes: Sizes) -> Result<Self, Box<dyn Error>> {
        let files = sizes.file.saturating_mul(threads as u64 + 1);
        let filesystem = Filesystem::new(Configuration {
            topology: Topology::emulated(nodes)?,
            content: ContentPlace::Replicated,
            logs: threads,
            // Far from full: what is left is not what is measured.
            size: Size::Bytes(files.saturating_mul(2).saturating_add(64 << 20)),
            inodes: None,
            permissions: Permissions::from_mode(0o755),
            owner: OWNER,
        })?;
        let token = filesystem.register(NodeId(0));
        let no_room = |errno| format!("the files cannot be made: {errno}");
        let shared = make(&filesystem, Ino::ROOT, "shared", NewNode::File, &token).map_err(no_room)?;
        fill(&filesystem, shared, 0, sizes.file, &token).map_err(no_room)?;
        let mut own = Vec::new();
        for (thread, file) in files_in_all_logs(&filesystem, threads, &token).map_err(no_room)?.into_iter().enumerate()
        {
            fill(&filesystem, file, thread, sizes.file, &token).map_err(no_room)?;
            let name = format!("directory {thread}");
            let directory = make(&filesystem, Ino::ROOT, &name, NewNode::Directory, &token).map_err(no_room)?;
            own.push(Place { file, directory });
        }
        drop(token);
        Ok(Self { filesystem, sizes, shared, own })
    }

    /// How many threads it is for.
    pub fn threads(&self) -> usize {
        self.own.len()
    }

    /// How many nodes it is on.
    pub fn nodes(&self) -> usize {
        self.filesystem.topology().nodes().len()
    }

    /// Operations per second of all threads together. They are spread over the nodes in turn, and pinned to `cpus`, in
    /// turn; not at all if there are none.
    ///
    /// # Errors
    ///
    /// An operation failed, or brought something wrong: of each [`SLICE`](throughput::SLICE) the last is looked at.
    pub fn rate(&self, operation: Operation, cpus: &[usize], duration: Duration) -> Result<f64, Failure> {
        let user = |thread| move || User::new(self, thread, operation);
        let (rate, users) = throughput::rate((0..self.threads()).map(user).collect(), cpus, duration);
        match users.into_iter().find_map(User::failure) {
            Some(failure) => Err(failure),
            None => Ok(rate),
        }
    }

    /// Whether all replicas agree, and in every file is what was written. Nobody may use it meanwhile.
    ///
    /// # Errors
    ///
    /// They do not, or something else is there.
    pub fn verify(&self) -> Result<(), Failure> {
        let token = self.filesystem.register(NodeId(0));
        let verified = self.filesystem.verify(&token);
        if let Some(differs) = verified.into_iter().find(|log| !log.agrees()) {
            return Err(Failure::Replicas(differs.log));
        }
        let shared = (self.shared, 0..self.threads());
        let own = self.own.iter().enumerate().map(|(thread, place)| (place.file, thread..thread + 1));
        let mut page = [0; PAGE];
        for (file, writers) in own.chain([shared]) {
            for offset in (0..self.sizes.file).step_by(PAGE) {
                let read = self.filesystem.read(file, offset, &mut page, &token);
                if read != Ok(PAGE) || !page::are_right(&page, offset, writers.clone()) {
                    return Err(Failure::Content);
                }
            }
        }
        Ok(())
    }
}

const OWNER: Owner = Owner { uid: 0, gid: 0 };

fn make(filesystem: &Filesystem, parent: Ino, name: &str, node: NewNode, token: &Token) -> Result<Ino, Errno> {
    let made = filesystem.create(parent, Name::new(name.as_bytes())?, NewInode::new(node, 0o755, 0, OWNER), token)?;
    Ok(made.ino)
}

/// Writes `size` bytes to a file, page by page, as `writer`.
fn fill(filesystem: &Filesystem, file: Ino, writer: usize, size: u64, token: &Token) -> Result<(), Errno> {
    let mut page = page::of(writer);
    for offset in (0..size).step_by(PAGE) {
        page::mark(&mut page, offset);
        filesystem.write(file, offset, &page, token)?;
    }
    Ok(())
}

/// Makes empty files until there is one in each of `logs` logs, the log of a file being its inode number modulo their
/// number; returns those, by log. What was made beyond them stays, empty.
fn files_in_all_logs(filesystem: &Filesystem, logs: usize, token: &Token) -> Result<Vec<Ino>, Errno> {
    let mut files = vec![None; logs];
    for number in 0.. {
        if files.iter().all(Option::is_some) {
            break;
        }
        let file = make(filesystem, Ino::ROOT, &format!("file {number}"), NewNode::File, token)?;
        files[(file.0 % logs as u64) as usize].get_or_insert(file);
    }
    Ok(files.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::throughput::Worker;

    const SIZES: Sizes = Sizes { read: 5000, file: 4 * PAGE as u64 };

    #[test]
    fn the_file_of_each_thread_is_in_a_log_of_its_own() {
        for threads in 1..=4 {
            let service = Service::new(2, threads, SIZES).unwrap();
            let logs: Vec<u64> = service.own.iter().map(|place| place.file.0 % threads as u64).collect();
            assert_eq!(logs, (0..threads as u64).collect::<Vec<_>>());
            assert_eq!((service.threads(), service.nodes()), (threads, 2));
        }
    }

    #[test]
    fn after_every_operation_all_is_as_it_was_written_on_all_replicas() {
        let service = Service::new(2, 2, SIZES).unwrap();
        for operation in Operation::ALL {
            assert_eq!(use_it(&service, operation), None, "{operation}");
            assert_eq!(service.verify(), Ok(()), "{operation}");
        }
    }

    #[test]
    fn what_is_not_there_as_it_was_written_is_found() {
        let service = Service::new(2, 2, SIZES).unwrap();
        let token = service.filesystem.register(NodeId(1));
        fill(&service.filesystem, service.own[0].file, 1, SIZES.file, &token).unwrap();
        assert_eq!(use_it(&service, Operation::ReadApart), Some(Failure::Wrong(Operation::ReadApart)));
        assert_eq!(service.verify(), Err(Failure::Content));
        service.filesystem.unlink(Ino::ROOT, Name::new(b"shared").unwrap(), &token).unwrap();
        let refused = Failure::Refused(Operation::StatShared, Errno::ENOENT);
        assert_eq!(use_it(&service, Operation::StatShared), Some(refused));
    }

    /// All threads do some slices, at the same time; returns what went wrong.
    fn use_it(service: &Service, operation: Operation) -> Option<Failure> {
        thread::scope(|scope| {
            let work = |thread| {
                let mut user = User::new(service, thread, operation);
                (0..20).for_each(|_| user.slice());
                user.failure()
            };
            let threads: Vec<_> = (0..service.threads()).map(|thread| scope.spawn(move || work(thread))).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).next()
        })
    }
}
