//! What is another in the specification of a container with a user namespace of its own. Pure.

use std::path::Path;

use oci_spec::runtime as oci;

use super::mount;
use crate::oci::id_range::IdRange;

/// What the file system of `/sys` is bound with: it is read-only already, and protected.
const SYS_OPTIONS: &[&str] = &["rbind", "nosuid", "noexec", "nodev", "ro"];

/// Puts the container into a user namespace of its own with the ids of `range`; `/sys` is a copy of
/// the mount of `sysfs`.
///
/// Its network namespace, which is the host's, cannot be entered from there: whoever starts the
/// container is in it already, and has set its sysctls.
pub fn in_user_namespace(spec: &mut oci::Spec, range: IdRange, sysfs: &Path) {
    for sys in spec.mounts_mut().iter_mut().flatten() {
        if sys.destination() == Path::new("/sys") {
            let options = SYS_OPTIONS.iter().map(|&word| word.to_owned()).collect();
            *sys = mount(Path::new("/sys"), "bind", sysfs, options);
        }
    }
    let Some(linux) = spec.linux_mut() else { return };
    if let Some(namespaces) = linux.namespaces_mut() {
        namespaces.retain(|namespace| namespace.typ() != oci::LinuxNamespaceType::Network);
        let mut user = oci::LinuxNamespace::default();
        user.set_typ(oci::LinuxNamespaceType::User);
        namespaces.push(user);
    }
    let ids = oci::LinuxIdMappingBuilder::default()
        .container_id(0_u32)
        .host_id(range.first)
        .size(range.size)
        .build()
        .expect("a mapping of plain numbers is one");
    linux.set_uid_mappings(Some(vec![ids])).set_gid_mappings(Some(vec![ids])).set_sysctl(None);
}
