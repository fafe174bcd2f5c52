//! The service from many threads.

use std::thread;

use scheduler::{Answer, CoreState, Errno, ProcessId, Scheduler, Topology, WriteOperation};

fn create(scheduler: &Scheduler) -> ProcessId {
    match scheduler.change(WriteOperation::Create) {
        Ok(Answer::Process(process)) => process,
        other => panic!("{other:?}"),
    }
}

#[test]
fn threads_that_fight_over_cores_leave_all_replicas_alike_and_no_core_lost() {
    for nodes in [1, 2, 4] {
        let scheduler = Scheduler::new(Topology::emulated(nodes).unwrap(), Some(7)).unwrap();
        thread::scope(|scope| {
            for thread in 0..6_usize {
                let scheduler = &scheduler;
                scope.spawn(move || {
                    let process = create(scheduler);
                    for round in 0..200 {
                        let wanted = (thread + round) % 8;
                        let request = WriteOperation::Request { process, cores: wanted };
                        let Ok(Answer::Cores(held)) = scheduler.change(request) else { panic!() };
                        assert!(held <= wanted);
                        // The core may have been taken meanwhile; then there is nothing to give back.
                        for core in scheduler.read(|machine| machine.status(process)).unwrap().cores {
                            let released = scheduler.change(WriteOperation::Release { process, core });
                            assert!(matches!(released, Ok(Answer::Done) | Err(Errno::EPERM)));
                        }
                        scheduler.change(WriteOperation::Tick).unwrap();
                    }
                    scheduler.change(WriteOperation::Exit(process)).unwrap();
                });
            }
        });
        let (_, digests) = scheduler.verify();
        assert!(digests.len() == nodes && digests.iter().all(|digest| *digest == digests[0]));
        let cores = scheduler.read(|machine| machine.cores());
        assert!(cores.len() == 7 && cores.iter().all(|core| core.state == CoreState::Idle));
    }
}

#[test]
fn the_machine_has_each_core_once_and_a_scheduler_at_least_one() {
    let scheduler = Scheduler::new(Topology::emulated(100).unwrap(), None).unwrap();
    let machine = Topology::machine().unwrap();
    let mut cpus: Vec<usize> = machine.nodes().iter().flat_map(|node| &node.cpus).map(|cpu| cpu.0).collect();
    cpus.sort_unstable();
    let cores: Vec<usize> = scheduler.read(|machine| machine.cores()).iter().map(|core| core.core.0).collect();
    assert_eq!(cores, cpus);
    assert!(Scheduler::new(machine, Some(0)).is_err());
}
