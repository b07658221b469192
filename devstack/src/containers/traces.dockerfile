# Takes the place of Jaeger for a test where no registry can be reached: the collector of `dev`, on Jaeger's ports.
ARG BASE
FROM ${BASE}
EXPOSE 4318 16686
CMD ["traces", "--otlp-addr", "0.0.0.0:4318", "--query-addr", "0.0.0.0:16686"]
