//! From a plugin's container to the engine's: names what the container touches for the gate, then says it as data.
//!
//! Nothing of a specification is dropped: what is not understood is refused by name.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HostConfig, HostConfigCgroupnsModeEnum, Mount, MountType,
    PortBinding, ResourcesUlimits,
};
use maddock_bindings::api::docker::ContainerSpec;
use maddock_bindings::api::types::{self, EnvValue, EnvVar, ErrorKind};

use super::upkeep::{DIRECTORY, OWNER};
use super::{Docker, reference};
use crate::capability::gate::Call;
use crate::capability::mark::Mark;
use crate::capability::secrets::SecretStore;
use crate::capability::{ApiError, error, error_with_hint};

/// The run that owns a container.
pub(super) const RUN: &str = "maddock.run";
/// The job that it belongs to.
pub(super) const JOB: &str = "maddock.job";
/// The plugin that made it.
pub(super) const PLUGIN: &str = "maddock.plugin";
/// The container's own name: an image that was made of a container of ours hands its labels on to whatever is made of that image.
pub(super) const NAME: &str = "maddock.container";

/// Names that `extra` may have.
const EXTRAS: &[&str] = &[
    "add-host",
    "blkio-weight",
    "cgroup-parent",
    "cgroupns",
    "cpu-period",
    "cpu-quota",
    "cpu-shares",
    "cpus",
    "cpuset-mems",
    "device-cgroup-rule",
    "dns",
    "dns-option",
    "dns-search",
    "domainname",
    "expose",
    "memory-reservation",
    "memory-swap",
    "memory-swappiness",
    "oom-kill-disable",
    "oom-score-adj",
    "pid",
    "pids-limit",
    "publish",
    "read-only",
    "runtime",
    "stop-signal",
    "stop-timeout",
    "storage-opt",
    "sysctl",
    "tmpfs",
    "userns",
    "uts",
    "workdir",
];

/// Extras that may come several times.
const LISTS: &[&str] = &[
    "add-host",
    "device-cgroup-rule",
    "dns",
    "dns-option",
    "dns-search",
    "expose",
    "publish",
    "storage-opt",
    "sysctl",
    "tmpfs",
];

fn invalid(message: impl Into<String>) -> ApiError {
    error(ErrorKind::InvalidInput, message)
}

/// Whose container it will be.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    /// The run's id.
    pub(super) run: String,
    /// The job's name.
    pub(super) job: Option<String>,
    /// The plugin's name.
    pub(super) plugin: String,
    /// The process that will remove it.
    pub(super) mark: Option<Mark>,
    /// The run's directory, which says whether it outlives that process.
    pub(super) directory: PathBuf,
}

/// Paths of the host that a container wants, followed to where they really are. Looked up once, so that what the gate was
/// asked about is what the engine is told.
pub(super) struct Paths {
    mounts: Vec<Result<PathBuf, ApiError>>,
    devices: Vec<Result<PathBuf, ApiError>>,
    /// What is mounted below a source that is to be read only: engines before 25 leave these as they are.
    still_writable: Vec<PathBuf>,
}

impl Paths {
    /// `here`: the engine is on this machine; elsewhere its paths cannot be looked at.
    pub(super) fn of(spec: &ContainerSpec, here: bool) -> Self {
        let mounts: Vec<_> = spec.mounts.iter().map(|mount| really("mount source", &mount.source, here)).collect();
        let devices = spec.devices.iter().map(|device| a_device(device, here)).collect();
        let read_only = spec.mounts.iter().zip(&mounts).filter(|(mount, _)| mount.read_only);
        let sources: Vec<&PathBuf> = read_only.filter_map(|(_, source)| source.as_ref().ok()).collect();
        let table = if here && !sources.is_empty() { std::fs::read("/proc/self/mountinfo").ok() } else { None };
        let still_writable = table.map_or_else(Vec::new, |table| writable_below(&table, &sources));
        Self { mounts, devices, still_writable }
    }
}

/// Places of a table of mounts that lie below one of the sources and may be written to, each once.
fn writable_below(table: &[u8], sources: &[&PathBuf]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let (Some(place), Some(options)) = (fields.nth(4), fields.next()) else { continue };
        let place = PathBuf::from(OsString::from_vec(unescaped(place)));
        let writable = !options.split(|byte| *byte == b',').any(|option| option == b"ro");
        let below = sources.iter().any(|source| place.starts_with(source) && place != **source);
        if writable && below && found.last() != Some(&place) {
            found.push(place);
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The table writes blanks and such as `\040`.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let number = behind.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match number.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

fn absolute(what: &str, path: &str) -> Result<PathBuf, ApiError> {
    let parsed = Path::new(path);
    let plain = parsed.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if parsed.is_absolute() && plain && !path.contains('\0') {
        Ok(parsed.components().collect())
    } else {
        Err(invalid(format!("{what} `{}` is not an absolute path without `..`", path.escape_debug())))
    }
}

fn really(what: &str, path: &str, here: bool) -> Result<PathBuf, ApiError> {
    let path = absolute(what, path)?;
    if !here {
        return Ok(path);
    }
    path.canonicalize().map_err(|cause| {
        let kind = if cause.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Failed };
        error(kind, format!("{what} `{}`: {}", path.display(), words(&cause)))
    })
}

fn words(cause: &std::io::Error) -> String {
    match cause.kind() {
        std::io::ErrorKind::NotFound => "there is no such file or directory on this machine".to_owned(),
        _ => cause.to_string(),
    }
}

fn a_device(path: &str, here: bool) -> Result<PathBuf, ApiError> {
    let device = really("device", path, here).map_err(|missing| {
        let hint = "see whether the driver is loaded, and which devices this machine has: `ls -l /dev`";
        error_with_hint(missing.kind, missing.message, hint)
    })?;
    if here {
        let kind =
            device.metadata().map_err(|cause| invalid(format!("device `{path}`: {}", words(&cause))))?.file_type();
        if !(kind.is_char_device() || kind.is_block_device() || kind.is_dir()) {
            return Err(invalid(format!("device `{path}` is not a device node")));
        }
    }
    Ok(device)
}

/// Says what a container will touch.
pub(super) fn scope(spec: &ContainerSpec, paths: &Paths) -> Call<Docker> {
    let mut call = Call::<Docker>::new("create-container").on("container", &spec.name).on("image", &spec.image);
    for (mount, found) in spec.mounts.iter().zip(&paths.mounts) {
        let source = found.as_ref().map_or_else(|_| mount.source.clone(), |path| path.display().to_string());
        if !mount.read_only {
            call = call.on("mount-write", &source);
        }
        call = call.on("mount", source);
    }
    call = call.on_all("mount-write", paths.still_writable.iter().map(|path| path.display().to_string()));
    for (device, found) in spec.devices.iter().zip(&paths.devices) {
        // Texts are compared, as rules compare them: `//dev/x` is `/dev/x`.
        let plain = absolute("device", device).map_or_else(|_| device.clone(), |path| path.display().to_string());
        let real = found.as_ref().ok().map(|path| path.display().to_string()).filter(|real| *real != plain);
        call = call.on("device", plain).on_all("device", real);
    }
    for request in &spec.device_requests {
        call = call.on_all("device-request", request_words(request));
    }
    // What is left to the engine and the image is told, too: a rule that names networks does not cover whichever is the
    // default, and a ceiling does not cover what has none.
    let given = |value: &str| if value.is_empty() { "default".to_owned() } else { value.to_owned() };
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
    let extra = |name: &str| {
        let found = spec.extra.iter().find(|extra| extra.name == name);
        found.map_or_else(|| "unlimited".to_owned(), |extra| unlimited(&extra.value))
    };
    call = call
        .on("network", given(&spec.network))
        .on("ipc", given(&spec.ipc))
        .on("user", given(&spec.user))
        .on("memory", bytes(spec.memory.filter(|bytes| *bytes > 0)))
        .on("cpus", extra("cpus"))
        .on("pids-limit", extra("pids-limit"))
        .on_all("shared-memory", spec.shared_memory.map(|bytes| bytes.to_string()));
    if spec.privileged {
        call = call.on("privileged", "true");
    }
    call = call
        .on_all("capability", &spec.add_capabilities)
        // Engines take `name:value`, too: one spelling for rules.
        .on_all("security-option", spec.security_options.iter().map(|option| option.replacen(':', "=", colon(option))))
        .on_all("group", &spec.groups);
    call = environment_scope(call, &spec.env);
    for extra in &spec.extra {
        call = match extra.name.as_str() {
            "pid" => call.on("pid", &extra.value),
            "runtime" => call.on("runtime", &extra.value),
            "userns" => call.on("userns", &extra.value),
            "uts" => call.on("uts", &extra.value),
            "cgroupns" => call.on("cgroupns", &extra.value),
            "device-cgroup-rule" => call.on("device-cgroup-rule", &extra.value),
            "publish" => call.on("publish", &extra.value),
            "sysctl" => call.on("sysctl", &extra.value),
            "cpus" | "pids-limit" => call,
            name => call.on("option", name),
        };
    }
    call
}

/// How many colons of a security option part its name from its value.
fn colon(option: &str) -> usize {
    usize::from(option.find(':').is_some_and(|colon| option.find('=').is_none_or(|equals| colon < equals)))
}

/// To an engine 0 and less are no limit.
fn unlimited(number: &str) -> String {
    let none = number.parse::<f64>().is_ok_and(|number| number <= 0.0);
    if none { "unlimited".to_owned() } else { number.to_owned() }
}

/// `driver/id` of each device asked for, `driver/all` where none is named.
fn request_words(request: &types::DeviceRequest) -> Vec<String> {
    let driver = if request.driver.is_empty() { "any" } else { &request.driver };
    if request.ids.is_empty() {
        return vec![format!("{driver}/all")];
    }
    request.ids.iter().map(|id| format!("{driver}/{id}")).collect()
}

/// Names of variables and of the secrets in them, never values.
pub(super) fn environment_scope(mut call: Call<Docker>, variables: &[EnvVar]) -> Call<Docker> {
    for variable in variables {
        call = call.on("env", &variable.name);
        if let EnvValue::Secret(secret) = &variable.value {
            call = call.on("secret", secret);
        }
    }
    call
}

/// The values of variables, the last of a name. This is where secrets are revealed.
pub(super) fn reveal(variables: &[EnvVar], secrets: &SecretStore) -> Result<Vec<(String, String)>, ApiError> {
    let mut values: Vec<(String, String)> = Vec::with_capacity(variables.len());
    for EnvVar { name, value } in variables {
        let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !good {
            return Err(invalid(format!("`{}` is not the name of an environment variable", name.escape_debug())));
        }
        let value = match value {
            EnvValue::Text(text) => text.clone(),
            EnvValue::Secret(secret) => revealed(secret, secrets)?.to_owned(),
        };
        if value.contains('\0') {
            return Err(invalid(format!("the value of `{name}` has a NUL byte, which no variable can hold")));
        }
        values.retain(|(other, _)| other != name);
        values.push((name.clone(), value));
    }
    Ok(values)
}

/// One secret's value.
pub(super) fn revealed<'a>(name: &str, secrets: &'a SecretStore) -> Result<&'a str, ApiError> {
    secrets.reveal(name).ok_or_else(|| {
        error_with_hint(
            ErrorKind::NotFound,
            format!("there is no secret `{name}`"),
            "add it to credential.json, or set the environment variable that holds it",
        )
    })
}

/// The engine's words for a container.
pub(super) fn translate(
    spec: &ContainerSpec,
    paths: Paths,
    owner: &Owner,
    secrets: &SecretStore,
) -> Result<ContainerCreateBody, ApiError> {
    reference::container(&spec.name)?;
    reference::Reference::parse(&spec.image)?;
    let env = reveal(&spec.env, secrets)?.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut host = HostConfig {
        mounts: Some(mounts(spec, paths.mounts)?),
        devices: Some(devices(spec, paths.devices)?),
        device_requests: Some(spec.device_requests.iter().map(device_request).collect()),
        group_add: Some(spec.groups.clone()),
        cap_add: Some(spec.add_capabilities.clone()),
        cap_drop: Some(spec.drop_capabilities.clone()),
        network_mode: given(&spec.network),
        ipc_mode: given(&spec.ipc),
        privileged: Some(spec.privileged),
        cpuset_cpus: given(&spec.cpuset),
        shm_size: spec.shared_memory.map(|bytes| whole("shared-memory", bytes)).transpose()?,
        memory: spec.memory.map(|bytes| whole("memory", bytes)).transpose()?,
        ulimits: Some(spec.ulimits.iter().map(ulimit).collect::<Result<_, _>>()?),
        init: Some(spec.init),
        ..HostConfig::default()
    };
    for (what, value) in [("network", &spec.network), ("ipc", &spec.ipc)] {
        own_namespace(what, value)?;
    }
    security(&spec.security_options, &mut host)?;
    let mut body = ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: (!spec.entrypoint.is_empty()).then(|| spec.entrypoint.clone()),
        cmd: (!spec.command.is_empty()).then(|| spec.command.clone()),
        env: Some(env),
        working_dir: given(&spec.directory),
        user: given(&spec.user),
        hostname: given(&spec.hostname),
        tty: Some(spec.tty),
        labels: Some(labels(spec, owner)?),
        ..ContainerCreateBody::default()
    };
    extras(spec, &mut body, &mut host)?;
    body.host_config = Some(host);
    Ok(body)
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn whole(what: &str, number: u64) -> Result<i64, ApiError> {
    i64::try_from(number).map_err(|_| invalid(format!("`{what}` of {number} bytes is too much")))
}

/// A container of somebody else must not be joined: it may belong to another run.
fn own_namespace(what: &str, value: &str) -> Result<(), ApiError> {
    if value.starts_with("container:") {
        return Err(error(
            ErrorKind::Unsupported,
            format!("`{what}` cannot be `{value}`: joining another container is not offered"),
        ));
    }
    Ok(())
}

fn mounts(spec: &ContainerSpec, found: Vec<Result<PathBuf, ApiError>>) -> Result<Vec<Mount>, ApiError> {
    spec.mounts
        .iter()
        .zip(found)
        .map(|(mount, source)| {
            let target = absolute("mount destination", &mount.destination)?;
            Ok(Mount {
                source: Some(source?.display().to_string()),
                target: Some(target.display().to_string()),
                typ: Some(MountType::BIND),
                read_only: Some(mount.read_only),
                ..Mount::default()
            })
        })
        .collect()
}

fn devices(spec: &ContainerSpec, found: Vec<Result<PathBuf, ApiError>>) -> Result<Vec<DeviceMapping>, ApiError> {
    spec.devices
        .iter()
        .zip(found)
        .map(|(device, path)| {
            let path = path?.display().to_string();
            Ok(DeviceMapping {
                path_on_host: Some(path),
                path_in_container: Some(device.clone()),
                cgroup_permissions: Some("rwm".to_owned()),
            })
        })
        .collect()
}

fn device_request(request: &types::DeviceRequest) -> DeviceRequest {
    let all = request.ids.is_empty();
    DeviceRequest {
        driver: given(&request.driver),
        count: all.then_some(-1),
        device_ids: (!all).then(|| request.ids.clone()),
        capabilities: (!request.capabilities.is_empty()).then(|| vec![request.capabilities.clone()]),
        options: None,
    }
}

fn ulimit(limit: &types::Entry) -> Result<ResourcesUlimits, ApiError> {
    let wrong = || invalid(format!("ulimit `{}={}` is not `name=soft:hard` in numbers", limit.name, limit.value));
    let (soft, hard) = limit.value.split_once(':').unwrap_or((&limit.value, &limit.value));
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| wrong());
    if limit.name.is_empty() {
        return Err(wrong());
    }
    Ok(ResourcesUlimits { name: Some(limit.name.clone()), soft: Some(number(soft)?), hard: Some(number(hard)?) })
}

fn security(options: &[String], host: &mut HostConfig) -> Result<(), ApiError> {
    let mut passed = Vec::new();
    for option in options {
        match option.split_once(['=', ':']) {
            // The engine knows this one by its effect.
            Some(("systempaths", "unconfined")) => {
                host.masked_paths = Some(Vec::new());
                host.readonly_paths = Some(Vec::new());
            }
            Some(("seccomp", profile))
                if !matches!(profile, "unconfined" | "builtin") && !profile.trim_start().starts_with('{') =>
            {
                return Err(error_with_hint(
                    ErrorKind::Unsupported,
                    format!("security option `{option}`: a profile's file is not read"),
                    "give the profile itself as JSON, or `seccomp=unconfined`",
                ));
            }
            _ => passed.push(option.clone()),
        }
    }
    host.security_opt = Some(passed);
    Ok(())
}

fn labels(spec: &ContainerSpec, owner: &Owner) -> Result<HashMap<String, String>, ApiError> {
    let mut labels = HashMap::new();
    for types::Entry { name, value } in &spec.labels {
        if name.is_empty() || [RUN, JOB, PLUGIN, NAME, OWNER, DIRECTORY].contains(&name.as_str()) {
            return Err(invalid(format!("label `{name}` is set by the host: a plugin cannot")));
        }
        labels.insert(name.clone(), value.clone());
    }
    labels.insert(RUN.to_owned(), owner.run.clone());
    labels.insert(PLUGIN.to_owned(), owner.plugin.clone());
    labels.insert(NAME.to_owned(), spec.name.clone());
    if let Some(job) = &owner.job {
        labels.insert(JOB.to_owned(), job.clone());
    }
    if let Some(mark) = owner.mark.as_ref().and_then(Mark::text) {
        labels.insert(OWNER.to_owned(), mark);
    }
    if let Some(directory) = owner.directory.to_str().filter(|directory| !directory.is_empty()) {
        labels.insert(DIRECTORY.to_owned(), directory.to_owned());
    }
    Ok(labels)
}

fn extras(spec: &ContainerSpec, body: &mut ContainerCreateBody, host: &mut HostConfig) -> Result<(), ApiError> {
    let mut seen: Vec<&str> = Vec::new();
    for types::Entry { name, value } in &spec.extra {
        if seen.contains(&name.as_str()) && !LISTS.contains(&name.as_str()) {
            return Err(invalid(format!("option `{name}` is given twice")));
        }
        seen.push(name);
        extra(spec, name, value, body, host)?;
    }
    Ok(())
}

fn extra(
    spec: &ContainerSpec,
    name: &str,
    value: &str,
    body: &mut ContainerCreateBody,
    host: &mut HostConfig,
) -> Result<(), ApiError> {
    let text =
        || if value.is_empty() { Err(invalid(format!("option `{name}` has no value"))) } else { Ok(value.to_owned()) };
    let number =
        || value.parse::<i64>().map_err(|_| invalid(format!("option `{name}`: `{value}` is not a whole number")));
    let truth = || match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(invalid(format!("option `{name}`: `{value}` is neither `true` nor `false`"))),
    };
    let pair = || match value.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(invalid(format!("option `{name}`: `{value}` is not `name=value`"))),
    };
    fn list(of: &mut Option<Vec<String>>, value: String) {
        of.get_or_insert_default().push(value);
    }
    match name {
        "add-host" => match value.split_once([':', '=']) {
            Some((host_name, address)) if !host_name.is_empty() && !address.is_empty() => {
                list(&mut host.extra_hosts, format!("{host_name}:{address}"))
            }
            _ => return Err(invalid(format!("option `add-host`: `{value}` is not `name:address`"))),
        },
        "blkio-weight" => {
            host.blkio_weight = Some(
                u16::try_from(number()?).map_err(|_| invalid(format!("option `{name}`: `{value}` is out of range")))?,
            )
        }
        "cgroup-parent" => host.cgroup_parent = Some(text()?),
        "cgroupns" => {
            host.cgroupns_mode = Some(match value {
                "host" => HostConfigCgroupnsModeEnum::HOST,
                "private" => HostConfigCgroupnsModeEnum::PRIVATE,
                _ => return Err(invalid(format!("option `cgroupns`: `{value}` is neither `host` nor `private`"))),
            });
        }
        "cpu-period" => host.cpu_period = Some(number()?),
        "cpu-quota" => host.cpu_quota = Some(number()?),
        "cpu-shares" => host.cpu_shares = Some(number()?),
        "cpus" => {
            host.nano_cpus = Some(
                billionths(value)
                    .ok_or_else(|| invalid(format!("option `cpus`: `{value}` is not a number of CPUs")))?,
            )
        }
        "cpuset-mems" => host.cpuset_mems = Some(text()?),
        "device-cgroup-rule" => list(&mut host.device_cgroup_rules, text()?),
        "dns" => list(&mut host.dns, text()?),
        "dns-option" => list(&mut host.dns_options, text()?),
        "dns-search" => list(&mut host.dns_search, text()?),
        "domainname" => body.domainname = Some(text()?),
        "expose" => list(&mut body.exposed_ports, port(&text()?)),
        "memory-reservation" => host.memory_reservation = Some(number()?),
        "memory-swap" => host.memory_swap = Some(number()?),
        "memory-swappiness" => host.memory_swappiness = Some(number()?),
        "oom-kill-disable" => host.oom_kill_disable = Some(truth()?),
        "oom-score-adj" => host.oom_score_adj = Some(number()?),
        "pid" => {
            own_namespace(name, value)?;
            host.pid_mode = Some(text()?);
        }
        "pids-limit" => host.pids_limit = Some(number()?),
        "publish" => publish(&text()?, body, host)?,
        "read-only" => host.readonly_rootfs = Some(truth()?),
        "runtime" => host.runtime = Some(text()?),
        "stop-signal" => body.stop_signal = Some(text()?),
        "stop-timeout" => body.stop_timeout = Some(number()?),
        "storage-opt" => {
            let (key, value) = pair()?;
            host.storage_opt.get_or_insert_default().insert(key, value);
        }
        "sysctl" => {
            let (key, value) = pair()?;
            host.sysctls.get_or_insert_default().insert(key, value);
        }
        "tmpfs" => {
            let (path, options) = value.split_once(':').unwrap_or((value, ""));
            let path = absolute("tmpfs", path)?.display().to_string();
            host.tmpfs.get_or_insert_default().insert(path, options.to_owned());
        }
        "userns" => host.userns_mode = Some(text()?),
        "uts" => host.uts_mode = Some(text()?),
        "workdir" if spec.directory.is_empty() => body.working_dir = Some(text()?),
        "workdir" => {
            return Err(invalid("option `workdir` and the container's directory say the same thing: give one"));
        }
        _ => return Err(unknown(name)),
    }
    Ok(())
}

fn unknown(name: &str) -> ApiError {
    let nearest =
        EXTRAS.iter().map(|known| (strsim::jaro_winkler(name, known), *known)).max_by(|a, b| a.0.total_cmp(&b.0));
    let message = format!("container option `{}` is not known", name.escape_debug());
    match nearest {
        Some((likeness, known)) if likeness > 0.8 => {
            error_with_hint(ErrorKind::InvalidInput, message, format!("did you mean `{known}`?"))
        }
        _ => error_with_hint(ErrorKind::InvalidInput, message, format!("known are: {}", EXTRAS.join(", "))),
    }
}

/// A decimal number of CPUs in billionths, without floating point.
fn billionths(text: &str) -> Option<i64> {
    let (units, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9
        || !units.chars().chain(fraction.chars()).all(|c| c.is_ascii_digit())
        || (units.is_empty() && fraction.is_empty())
    {
        return None;
    }
    let units: i64 = if units.is_empty() { 0 } else { units.parse().ok()? };
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    units.checked_mul(1_000_000_000)?.checked_add(fraction).filter(|number| *number > 0)
}

fn port(text: &str) -> String {
    if text.contains('/') { text.to_owned() } else { format!("{text}/tcp") }
}

/// `[address:]host-port:container-port[/protocol]`, or a container's port alone.
fn publish(text: &str, body: &mut ContainerCreateBody, host: &mut HostConfig) -> Result<(), ApiError> {
    let (before, inside) = text.rsplit_once(':').map_or((None, text), |(before, inside)| (Some(before), inside));
    let (address, outside) = match before {
        None => (None, None),
        Some(before) => {
            before.rsplit_once(':').map_or((None, Some(before)), |(address, outside)| (Some(address), Some(outside)))
        }
    };
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
    let number = inside.split_once('/').map_or(inside, |(number, _)| number);
    if !is_port(number) || !outside.is_none_or(|outside| outside.is_empty() || is_port(outside)) {
        return Err(invalid(format!("option `publish`: `{text}` is not `[address:]port:port[/protocol]`")));
    }
    let binding = PortBinding {
        host_ip: address.map(|address| address.trim_matches(['[', ']']).to_owned()),
        host_port: outside.map(str::to_owned),
    };
    let inside = port(inside);
    host.port_bindings.get_or_insert_default().entry(inside.clone()).or_default().get_or_insert_default().push(binding);
    body.exposed_ports.get_or_insert_default().push(inside);
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A container that asks for nothing.
    pub(crate) fn plain(name: &str, image: &str, command: &[&str]) -> ContainerSpec {
        ContainerSpec {
            name: name.to_owned(),
            image: image.to_owned(),
            entrypoint: vec![],
            command: command.iter().map(|&word| word.to_owned()).collect(),
            env: vec![],
            directory: String::new(),
            user: String::new(),
            mounts: vec![],
            devices: vec![],
            device_requests: vec![],
            groups: vec![],
            add_capabilities: vec![],
            drop_capabilities: vec![],
            security_options: vec![],
            network: String::new(),
            ipc: String::new(),
            privileged: false,
            cpuset: String::new(),
            shared_memory: None,
            memory: None,
            ulimits: vec![],
            labels: vec![],
            hostname: String::new(),
            init: false,
            tty: false,
            extra: vec![],
        }
    }

    pub(crate) fn entry(name: &str, value: &str) -> types::Entry {
        types::Entry { name: name.to_owned(), value: value.to_owned() }
    }

    fn owner() -> Owner {
        Owner {
            run: "r1".to_owned(),
            job: Some("j1".to_owned()),
            plugin: "target-docker".to_owned(),
            mark: None,
            directory: PathBuf::new(),
        }
    }

    fn body(spec: &ContainerSpec) -> Result<ContainerCreateBody, ApiError> {
        translate(spec, Paths::of(spec, true), &owner(), &SecretStore::default())
    }

    #[test]
    fn the_owner_is_on_every_container_and_cannot_be_overridden() {
        let labels = body(&plain("c", "i", &[])).unwrap().labels.unwrap();
        assert_eq!(
            (labels[RUN].as_str(), labels[JOB].as_str(), labels[PLUGIN].as_str()),
            ("r1", "j1", "target-docker")
        );
        let forged = ContainerSpec { labels: vec![entry(RUN, "other")], ..plain("c", "i", &[]) };
        assert!(body(&forged).unwrap_err().message.contains("`maddock.run`"));
    }

    #[test]
    fn an_option_that_is_not_known_is_refused_by_name_with_the_nearest() {
        let spec = ContainerSpec { extra: vec![entry("cgroup-ns", "host")], ..plain("c", "i", &[]) };
        let error = body(&spec).unwrap_err();
        assert!(error.message.contains("`cgroup-ns`"));
        assert_eq!(error.hint.unwrap(), "did you mean `cgroupns`?");
    }

    #[test]
    fn every_known_option_is_understood() {
        let value = |name: &str| match name {
            "add-host" => "a:1.2.3.4",
            "cgroupns" | "pid" | "userns" | "uts" => "host",
            "oom-kill-disable" | "read-only" => "true",
            "storage-opt" | "sysctl" => "a=b",
            "tmpfs" => "/t:size=1m",
            "publish" => "127.0.0.1:8080:80",
            "dns" | "dns-option" | "dns-search" | "domainname" | "runtime" | "workdir" | "stop-signal" => "x",
            _ => "7",
        };
        for name in EXTRAS {
            let spec = ContainerSpec { extra: vec![entry(name, value(name))], ..plain("c", "i", &[]) };
            if let Err(error) = body(&spec) {
                panic!("{name}: {}", error.message);
            }
        }
    }

    #[test]
    fn an_option_that_is_no_list_comes_once() {
        let twice = |name: &str| ContainerSpec {
            extra: vec![entry(name, "8.8.8.8"), entry(name, "9.9.9.9")],
            ..plain("c", "i", &[])
        };
        assert!(body(&twice("runtime")).unwrap_err().message.contains("twice"));
        assert_eq!(body(&twice("dns")).unwrap().host_config.unwrap().dns.unwrap().len(), 2);
    }

    #[test]
    fn devices_and_mounts_that_are_not_there_are_named() {
        let device = ContainerSpec { devices: vec!["/dev/no-such-accelerator".to_owned()], ..plain("c", "i", &[]) };
        let error = body(&device).unwrap_err();
        assert!(
            matches!(error.kind, ErrorKind::NotFound) && error.message.contains("`/dev/no-such-accelerator`"),
            "{error:?}"
        );
        let file = ContainerSpec { devices: vec!["/etc/passwd".to_owned()], ..plain("c", "i", &[]) };
        assert!(body(&file).unwrap_err().message.contains("not a device node"));
        let mount = maddock_bindings::api::docker::Mount {
            source: "/no/such".to_owned(),
            destination: "/x".to_owned(),
            read_only: true,
        };
        assert!(
            body(&ContainerSpec { mounts: vec![mount], ..plain("c", "i", &[]) })
                .unwrap_err()
                .message
                .contains("`/no/such`")
        );
    }

    #[test]
    fn what_is_mounted_below_a_source_that_is_read_only_may_still_be_written_to() {
        let table = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            23 22 8:2 / /data rw - ext4 /dev/sdb rw\n\
            24 23 8:3 / /data/a\\040b rw,nosuid - tmpfs tmpfs rw\n\
            25 23 8:4 / /data/fixed ro,nosuid - tmpfs tmpfs rw\n\
            26 22 8:5 / /database rw - ext4 /dev/sdc rw\n\
            24 23 8:3 / /data/a\\040b rw,nosuid - tmpfs tmpfs rw\nhalf a li";
        let below = |source: &str| writable_below(table, &[&PathBuf::from(source)]);
        assert_eq!(below("/data"), [PathBuf::from("/data/a b")]);
        assert!(below("/data/fixed").is_empty() && below("/other").is_empty());
        assert_eq!(below("/").len(), 3);
    }

    #[test]
    fn a_device_has_one_spelling() {
        for given in ["//dev/null", "/dev/./null", "/dev//null", "/dev/null"] {
            let spec = ContainerSpec { devices: vec![given.to_owned()], ..plain("c", "i", &[]) };
            let asked = format!("{:?}", scope(&spec, &Paths::of(&spec, true)));
            assert_eq!(asked.matches("\"device\"").count(), 1, "{asked}");
            assert!(asked.contains("(\"device\", \"/dev/null\")"), "{given}: {asked}");
        }
    }

    #[test]
    fn a_mount_through_a_link_is_asked_for_as_what_it_really_is() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("secret")).unwrap();
        std::os::unix::fs::symlink(root.join("secret"), root.join("harmless")).unwrap();
        let mount = maddock_bindings::api::docker::Mount {
            source: root.join("harmless").display().to_string(),
            destination: "/x".to_owned(),
            read_only: false,
        };
        let spec = ContainerSpec { mounts: vec![mount], ..plain("c", "i", &[]) };
        let real = root.join("secret").display().to_string();
        let expected = Call::<Docker>::new("create-container")
            .on("container", "c")
            .on("image", "i")
            .on("mount-write", &real)
            .on("mount", &real)
            .on("network", "default")
            .on("ipc", "default")
            .on("user", "default")
            .on("memory", "unlimited")
            .on("cpus", "unlimited")
            .on("pids-limit", "unlimited");
        assert_eq!(scope(&spec, &Paths::of(&spec, true)), expected);
        assert_eq!(body(&spec).unwrap().host_config.unwrap().mounts.unwrap()[0].source.as_deref(), Some(real.as_str()));
    }

    #[test]
    fn a_security_option_has_one_spelling_and_no_limit_one_word() {
        for (given, told) in [("seccomp:unconfined", "seccomp=unconfined"), ("label=a:b", "label=a:b"), ("x", "x")] {
            assert_eq!(given.replacen(':', "=", colon(given)), told);
        }
        for (given, told) in [("-1", "unlimited"), ("0", "unlimited"), ("100", "100"), ("1.5", "1.5"), ("x", "x")] {
            assert_eq!(unlimited(given), told);
        }
    }

    #[test]
    fn another_container_cannot_be_joined() {
        for spec in [
            ContainerSpec { network: "container:x".to_owned(), ..plain("c", "i", &[]) },
            ContainerSpec { ipc: "container:x".to_owned(), ..plain("c", "i", &[]) },
            ContainerSpec { extra: vec![entry("pid", "container:x")], ..plain("c", "i", &[]) },
        ] {
            assert!(matches!(body(&spec).unwrap_err().kind, ErrorKind::Unsupported));
        }
    }

    #[test]
    fn a_secret_that_is_missing_is_named() {
        let variable = EnvVar { name: "TOKEN".to_owned(), value: EnvValue::Secret("credential/x/y".to_owned()) };
        let error = body(&ContainerSpec { env: vec![variable], ..plain("c", "i", &[]) }).unwrap_err();
        assert!(matches!(error.kind, ErrorKind::NotFound) && error.message.contains("`credential/x/y`"));
    }

    #[test]
    fn the_last_value_of_a_variable_wins() {
        let variable = |value: &str| EnvVar { name: "A".to_owned(), value: EnvValue::Text(value.to_owned()) };
        let spec = ContainerSpec { env: vec![variable("1"), variable("2")], ..plain("c", "i", &[]) };
        assert_eq!(body(&spec).unwrap().env.unwrap(), ["A=2"]);
    }

    #[test]
    fn cpus_are_exact() {
        assert_eq!(billionths("1.5"), Some(1_500_000_000));
        assert_eq!(billionths("0.000000001"), Some(1));
        for wrong in ["", ".", "-1", "1e3", "0", "1.0000000001"] {
            assert_eq!(billionths(wrong), None, "{wrong}");
        }
    }
}
