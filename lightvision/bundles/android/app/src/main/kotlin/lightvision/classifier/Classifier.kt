package lightvision.classifier

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.exp

/** The network in ONNX Runtime; `threads` 0 takes every core. */
class Classifier(model: ByteArray, private val size: Int, threads: Int) : AutoCloseable {
    private val environment = OrtEnvironment.getEnvironment()
    private val session: OrtSession = OrtSession.SessionOptions().use { options ->
        options.setIntraOpNumThreads(threads)
        options.setInterOpNumThreads(1)
        environment.createSession(model, options)
    }
    private val input = session.inputNames.first()

    /** A probability for each class, of RGB pixels of the network's size. */
    fun probabilities(square: ByteArray): DoubleArray = tensor(square).use { softmax(logits(it)) }

    /** Of single calls, for as long as is asked, and `fewest` at least. */
    fun milliseconds(square: ByteArray, seconds: Double, fewest: Int): List<Double> = tensor(square).use { images ->
        val found = mutableListOf<Double>()
        val start = System.nanoTime()
        while (found.size < fewest || System.nanoTime() - start < seconds * 1e9) {
            val begin = System.nanoTime()
            logits(images)
            found.add((System.nanoTime() - begin) / 1e6)
        }
        found
    }

    private fun tensor(square: ByteArray): OnnxTensor {
        val bytes = ByteBuffer.allocateDirect(square.size).order(ByteOrder.nativeOrder())
        bytes.put(square).rewind()
        val shape = longArrayOf(1, size.toLong(), size.toLong(), 3)
        return OnnxTensor.createTensor(environment, bytes, shape, OnnxJavaType.UINT8)
    }

    private fun logits(images: OnnxTensor): FloatArray = session.run(mapOf(input to images)).use { answer ->
        val values = (answer.get(0) as OnnxTensor).floatBuffer
        FloatArray(values.remaining()).also { values.get(it) }
    }

    private fun softmax(logits: FloatArray): DoubleArray {
        var largest = Double.NEGATIVE_INFINITY
        for (logit in logits) largest = maxOf(largest, logit.toDouble())
        val powers = DoubleArray(logits.size) { exp(logits[it] - largest) }
        val sum = powers.sum()
        return DoubleArray(powers.size) { powers[it] / sum }
    }

    override fun close() = session.close()
}
