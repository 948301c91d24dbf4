use boxpool_sim::arm::ArmServer;
use std::net::SocketAddr;
use std::process::ExitCode;

pub(crate) fn serve(
    port: u16,
    seed: u64,
    time_scale: f64,
    throttle: f64,
    most_machines: Option<usize>,
    full_sizes: Vec<String>,
) -> ExitCode {
    let run = async {
        let mut builder = ArmServer::builder()
            .seed(seed)
            .time_scale(time_scale)
            .throttle(throttle)
            .full_sizes(full_sizes)
            .listen(SocketAddr::from(([127, 0, 0, 1], port)));
        if let Some(most) = most_machines {
            builder = builder.most_machines(most);
        }
        let server = builder.start().await?;
        println!("{}", server.url());
        std::future::pending::<std::io::Result<()>>().await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::complain(&format!("port {port} of 127.0.0.1 cannot be served: {error}")),
    }
}
