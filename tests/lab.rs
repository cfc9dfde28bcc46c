//! The place where the tests' KVM comes from works, and a job's failure is seen.

use crate::harness::kvm::KvmJob;

#[test]
fn a_job_has_a_kvm_and_its_exit_status_comes_back() {
    let said = KvmJob::new("test -c /dev/kvm\necho found\nexit 7").run();
    assert_eq!((said.code(), said.stdout.trim()), (7, "found"));
}
