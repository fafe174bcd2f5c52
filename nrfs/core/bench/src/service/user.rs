//! A thread that uses the service.

use std::hint::black_box;
use std::ops::Range;

use filesystem::{Errno, Filesystem, Ino, Name, NewInode, NewNode, NodeId, Token};

use super::{Failure, OWNER, Operation, Place, Service, Sizes};
use crate::page::{self, PAGE};
use crate::random::Random;
use crate::throughput::{SLICE, Worker};

/// What a thread needs for one kind of operation.
pub struct User<'a> {
    filesystem: &'a Filesystem,
    token: Token,
    operation: Operation,
    /// What reads, writes and stats are on.
    file: Ino,
    /// Who else writes it, by number.
    writers: Range<usize>,
    /// Where files are made.
    directory: Ino,
    sizes: Sizes,
    random: Random,
    /// What is read goes here.
    read: Vec<u8>,
    /// What is written.
    page: [u8; PAGE],
    names: Names,
    /// What went wrong first.
    failure: Option<Failure>,
}

impl<'a> User<'a> {
    /// The thread of this number, from 0 to one less than the service has.
    pub fn new(service: &'a Service, thread: usize, operation: Operation) -> Self {
        let Service { filesystem, sizes, shared, own } = service;
        let Place { file, directory } = own[thread];
        let (file, writers) = if operation.is_shared() { (*shared, 0..own.len()) } else { (file, thread..thread + 1) };
        Self {
            filesystem,
            token: filesystem.register(NodeId(thread % service.nodes())),
            operation,
            file,
            writers,
            directory,
            sizes: *sizes,
            random: Random::of_thread(thread),
            read: vec![0; sizes.read],
            page: page::of(thread),
            names: Names::new(),
            failure: None,
        }
    }

    /// What went wrong, if anything did.
    pub fn failure(self) -> Option<Failure> {
        self.failure
    }

    // Each of the following does a slice, and returns whether its last operation brought what is there.

    fn reads(&mut self) -> Result<bool, Errno> {
        let places = (self.sizes.file - self.read.len() as u64) / PAGE as u64 + 1;
        let (mut offset, mut read) = (0, 0);
        for _ in 0..SLICE {
            offset = self.random.below(places) * PAGE as u64;
            read = self.filesystem.read(self.file, offset, &mut self.read, &self.token)?;
        }
        Ok(read == self.read.len() && page::are_right(&self.read, offset, self.writers.clone()))
    }

    /// Here it is whether all were whole; what is in the file is looked at when all is done.
    fn writes(&mut self) -> Result<bool, Errno> {
        let pages = self.sizes.file / PAGE as u64;
        let mut written = 0;
        for _ in 0..SLICE {
            let offset = self.random.below(pages) * PAGE as u64;
            page::mark(&mut self.page, offset);
            written += self.filesystem.write(self.file, offset, &self.page, &self.token)?;
        }
        Ok(written == SLICE as usize * PAGE)
    }

    fn creates(&mut self) -> Result<bool, Errno> {
        for _ in 0..SLICE {
            let name = self.names.next()?;
            let inode = NewInode::new(NewNode::File, 0o644, 0, OWNER);
            self.filesystem.create(self.directory, name.clone(), inode, &self.token)?;
            self.filesystem.unlink(self.directory, name, &self.token)?;
        }
        let last = self.filesystem.lookup(self.directory, &self.names.last()?, &self.token);
        Ok(last.is_err_and(|errno| errno == Errno::ENOENT))
    }

    fn stats(&mut self) -> Result<bool, Errno> {
        let mut size = 0;
        for _ in 0..SLICE {
            // Looked at where they are: to take them out of the result would copy them, a tenth of what is measured.
            match black_box(&self.filesystem.attributes(self.file, &self.token)) {
                Ok(attributes) => size = attributes.size,
                Err(errno) => return Err(*errno),
            }
        }
        Ok(size == self.sizes.file)
    }
}

impl Worker for User<'_> {
    fn slice(&mut self) {
        let operation = self.operation;
        let done = match operation {
            Operation::ReadShared | Operation::ReadApart => self.reads(),
            Operation::WriteShared | Operation::WriteApart => self.writes(),
            Operation::Create => self.creates(),
            Operation::StatShared | Operation::StatApart => self.stats(),
        };
        let failure = match done {
            Ok(true) => return,
            Ok(false) => Failure::Wrong(operation),
            Err(errno) => Failure::Refused(operation, errno),
        };
        self.failure.get_or_insert(failure);
    }
}

/// Names one after the other: a number in decimal digits, counted up in place, as to format it would take longer.
struct Names([u8; 16]);

impl Names {
    fn new() -> Self {
        Self([b'0'; 16])
    }

    fn next(&mut self) -> Result<Name, Errno> {
        for digit in self.0.iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                break;
            }
            *digit = b'0';
        }
        self.last()
    }

    /// What [`next`](Self::next) returned last.
    fn last(&self) -> Result<Name, Errno> {
        Name::new(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_up() {
        let mut names = Names::new();
        let counted: Vec<Name> = (0..1000).map(|_| names.next().unwrap()).collect();
        for (number, name) in (1..).zip(&counted) {
            assert_eq!(name.as_bytes(), format!("{number:016}").as_bytes());
        }
    }
}
