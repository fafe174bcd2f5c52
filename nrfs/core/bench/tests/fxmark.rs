//! FxMark's workloads do what they are named after, and notice if something else is there than what they made.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bench::fxmark::calls::Calls;
use bench::fxmark::team::{Threads, rate};
use bench::fxmark::worker::{Worker, bytes, found, harness};
use bench::fxmark::{Failure, Service, Setting, System, Workload};
use filesystem::Filesystem;
use rustix::io::Errno;

const MOMENT: Duration = Duration::from_millis(3);

fn setting(workload: Workload) -> Setting {
    Setting { workload, cores: 2, open_files: 2, writes: 60, file_size: 1 << 20 }
}

fn service(setting: &Setting) -> Arc<Filesystem> {
    let filesystem = Service::filesystem(2, 2, bytes(setting)).unwrap();
    found(&Service::new(filesystem.clone(), 0), setting).unwrap();
    filesystem
}

#[test]
fn every_workload_works_on_the_service_and_leaves_equal_replicas() {
    for workload in Workload::ALL {
        let setting = setting(workload);
        let filesystem = service(&setting);
        let worker = |core| {
            let filesystem = filesystem.clone();
            move || Worker::new(Service::new(filesystem, core), setting, core)
        };
        let mut team = Threads::new((0..2).map(worker).collect(), &[]);
        assert!(rate(&mut team, MOMENT).unwrap() > 0.0, "{workload}");
        Service::verify(&filesystem).unwrap();
    }
}

#[test]
fn every_workload_works_in_a_directory() {
    // Not on a disk, which would take minutes.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let parent = place.join(format!("fxmark-{}", std::process::id()));
    for workload in Workload::ALL {
        let (setting, directory) = (setting(workload), parent.join(workload.to_string()));
        fs::create_dir_all(&directory).unwrap();
        found(&System::new(&directory).unwrap(), &setting).unwrap();
        let worker = |core| {
            let calls = System::new(&directory).unwrap();
            move || Worker::new(calls, setting, core)
        };
        let mut team = Threads::new((0..2).map(worker).collect(), &[]);
        assert!(rate(&mut team, MOMENT).unwrap() > 0.0, "{workload}");
        fs::remove_dir_all(&directory).unwrap();
    }
    fs::remove_dir_all(&parent).unwrap();
}

#[test]
fn a_phase_that_uses_something_up_is_repeated_until_the_time_is_over() {
    let setting = Setting { cores: 1, ..setting(Workload::MWUL) };
    let calls = Service::new(service(&setting), 0);
    let mut worker = Worker::new(calls, setting, 0);
    for _ in 0..3 {
        worker.prepare().unwrap();
        assert_eq!(worker.work(Duration::MAX).unwrap().operations, 16_384);
        worker.check().unwrap();
    }
}

#[test]
fn what_somebody_else_has_written_is_found() {
    for (workload, path) in [
        (Workload::DRBL, &b"0000/file"[..]),
        (Workload::DRBM, b"shared/file"),
        (Workload::DRBH, b"shared/file"),
        (Workload::Mix, b"shared/00000000"),
    ] {
        let setting = Setting { writes: 0, ..setting(workload) };
        let calls = Service::new(service(&setting), 0);
        let file = calls.open(path).unwrap();
        (0..256).for_each(|page| assert_eq!(calls.write(&file, &[7; 4096], page * 4096).unwrap(), 4096));
        let mut worker = Worker::new(calls, setting, 0);
        worker.prepare().unwrap();
        assert_eq!(worker.work(MOMENT).unwrap_err(), Failure::Wrong("read"), "{workload}");
    }
}

#[test]
fn what_is_missing_of_what_was_done_is_found() {
    for (workload, path, failure) in [
        (Workload::MWCL, &b"0000/00000000"[..], Failure::Wrong("readdir")),
        (Workload::MWCM, b"shared/0000-00000000", Failure::Wrong("readdir")),
        (Workload::MWUL, b"0000/00016383", Failure::Wrong("readdir")),
        (Workload::MWUM, b"shared/0000-00016383", Failure::Wrong("readdir")),
        (Workload::MWRM, b"shared/0000-00000000", Failure::Wrong("readdir")),
        (Workload::DWAL, b"0000/file", Failure::Refused("stat", Errno::NOENT)),
        (Workload::DWTL, b"0000/file", Failure::Refused("stat", Errno::NOENT)),
    ] {
        let setting = setting(workload);
        let filesystem = service(&setting);
        let mut worker = Worker::new(Service::new(filesystem.clone(), 0), setting, 0);
        worker.prepare().unwrap();
        worker.work(Duration::ZERO).unwrap();
        worker.check().unwrap();
        Service::new(filesystem, 0).unlink(path).unwrap();
        assert_eq!(worker.check().unwrap_err(), failure, "{workload}");
    }
}

#[test]
fn a_full_file_system_is_said() {
    let setting = setting(Workload::DWTL);
    let filesystem = Service::filesystem(1, 1, 0).unwrap();
    let calls = Service::new(filesystem, 0);
    found(&calls, &setting).unwrap();
    // With this page, its 64 MiB are less than a phase of one core takes.
    let file = calls.open(b"shared/large").unwrap();
    assert_eq!(calls.write(&file, &[1; 4096], 0).unwrap(), 4096);
    let mut worker = Worker::new(calls, setting, 0);
    assert_eq!(worker.prepare().unwrap_err(), Failure::Refused("write", Errno::NOSPC));
}

#[test]
fn the_harness_takes_little() {
    for workload in Workload::ALL {
        let took = harness(&setting(workload));
        assert!(took > 0.0 && took.is_finite(), "{workload}");
    }
}
