//! The tests.

mod commands;
mod entering;
mod files;
mod lifetime;
mod powers;

pub use lifetime::dying_helper;

/// Name and body.
type Case = (&'static str, fn());

/// The test for which the helper is executed again from a read-only mount.
pub const SEALED: &str = "program_out_of_reach";

/// The test for which further ids are mapped into the helper's user namespace.
pub const MANY_IDS: &str = "many_subids";

/// Every test.
pub const ALL: &[Case] = &[
    ("exit_status", commands::exit_status),
    (
        "command_not_found_or_not_executable",
        commands::command_errors,
    ),
    ("set_up_failures_name_the_step", commands::setup_failures),
    ("malformed_specs", commands::malformed),
    ("namespaces_identity_and_capabilities", commands::identity),
    (
        "environment_workdir_umask_and_signals",
        commands::inheritance,
    ),
    ("no_descriptor_leaks", commands::descriptors),
    ("network_of_its_own", commands::network),
    ("files_laid_over_existing_ones", files::binds),
    ("files_laid_over_links_and_nothing", files::binds_missing),
    ("files_added_to_the_real_etc", files::real_etc),
    ("masked_directories", files::masks),
    ("root_directory", files::rootfs),
    ("root_directory_with_hostile_links", files::hostile_rootfs),
    ("exec_in_a_sandbox", entering::exec_enters),
    ("exec_failures", entering::exec_failures),
    ("join_another_sandbox", entering::join),
    ("host_network", entering::host),
    ("terminal", lifetime::terminal),
    ("signals_and_forget", lifetime::signals),
    ("death_of_the_helper", lifetime::parent_death),
    ("many_without_leaks", lifetime::many),
    ("no_power_over_the_helper", powers::no_power),
    ("partly_hidden_proc_and_sys", powers::hidden_proc),
    ("helper_with_few_capabilities", powers::few_capabilities),
    (SEALED, powers::sealed),
    (MANY_IDS, powers::many_ids),
];
