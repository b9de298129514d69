//! Which version of its policies each instance of a service has in force.

use std::time::Duration;

use larder::api::InstanceSummary;
use larder::{Service, Settings};

use crate::output::{Column, Done, Output, duration};
use crate::policy_api::ControlPlane;

pub(crate) async fn run(
    service: Option<Service>,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    let plane = ControlPlane::of(settings)?;
    let instances = plane.instances(service.as_ref()).await?.instances;
    if output.is_json() {
        output.json(&instances)?;
        return Ok(Done::Yes);
    }
    let columns = [
        Column::Text("SERVICE"),
        Column::Text("INSTANCE"),
        Column::Text("STATE"),
        Column::Number("VERSION"),
        Column::Text("OVER"),
        Column::Number("SINCE"),
        Column::Number("HEARD OF"),
        Column::Text("REJECTED"),
    ];
    output.table(&columns, instances.iter().map(row).collect())?;
    Ok(Done::Yes)
}

fn row(one: &InstanceSummary) -> Vec<String> {
    let version = one.version.map_or("none".to_owned(), |it| it.to_string());
    let version = match one.version == Some(one.current_version) {
        true => version,
        false => format!("{version} of {}", one.current_version),
    };
    let ago = |seconds| format!("{} ago", duration(Duration::from_secs(seconds)));
    let rejected = one.rejected.as_ref().map(|rejected| {
        let what = rejected.tag.as_deref().unwrap_or("without a tag");
        format!("{what}: {}", rejected.reason)
    });
    vec![
        one.service_name.clone(),
        one.instance.clone(),
        one.state.as_str().to_owned(),
        version,
        one.via.as_str().to_owned(),
        one.version
            .map_or(String::new(), |_| ago(one.activated_seconds_ago)),
        ago(one.seen_seconds_ago),
        rejected.unwrap_or_default(),
    ]
}
