// Command otel is net/http with OpenTelemetry's own SDK: `otel PORT UPSTREAM COLLECTOR http|grpc`. `/order` asks the upstream.
package main

import (
	"context"
	"io"
	"log"
	"net/http"
	"os"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

func exporter(how, collector string) (trace.SpanExporter, error) {
	address := strings.TrimPrefix(collector, "http://")
	if how == "grpc" {
		return otlptracegrpc.New(context.Background(), otlptracegrpc.WithEndpoint(address), otlptracegrpc.WithInsecure())
	}
	return otlptracehttp.New(context.Background(), otlptracehttp.WithEndpoint(address), otlptracehttp.WithInsecure())
}

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: otel PORT UPSTREAM COLLECTOR http|grpc")
	}
	port, upstream := os.Args[1], os.Args[2]
	exporter, err := exporter(os.Args[4], os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	name, err := resource.Merge(resource.Default(), resource.NewSchemaless(attribute.String("service.name", "sdk")))
	if err != nil {
		log.Fatal(err)
	}
	// Each span is exported before its answer is sent.
	otel.SetTracerProvider(trace.NewTracerProvider(trace.WithSyncer(exporter), trace.WithResource(name)))
	otel.SetTextMapPropagator(propagation.TraceContext{})
	client := &http.Client{Transport: otelhttp.NewTransport(http.DefaultTransport)}
	order := func(w http.ResponseWriter, r *http.Request) {
		request, err := http.NewRequestWithContext(r.Context(), "GET", upstream+"/s/200", nil)
		if err != nil {
			log.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer response.Body.Close()
		io.Copy(w, response.Body)
	}
	http.Handle("/order", otelhttp.NewHandler(http.HandlerFunc(order), "order"))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, nil))
}
