package lightvision.classifier

import ai.onnxruntime.OrtException
import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.ClipData
import android.content.Intent
import android.graphics.Bitmap
import android.net.Uri
import android.os.Build
import android.os.Bundle
import android.provider.MediaStore
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.ImageView
import android.widget.ProgressBar
import android.widget.TextView
import androidx.core.content.FileProvider
import java.io.File
import java.io.IOException
import java.text.NumberFormat
import java.util.Locale
import java.util.concurrent.Executors

private const val CHOSEN = 1
private const val TAKEN = 2
private const val ADDRESS = "address"
private const val TOP = 5
private const val SECONDS = 0.5 // that a picture is timed
private const val FEWEST = 5

private inline fun <reified Part : View> View.part(id: Int): Part = findViewById(id) as Part

/** One screen: a picture, what the network says of it, and what this device is capable of. */
class MainActivity : Activity() {
    private lateinit var facts: Facts
    private var address: Uri? = null

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.main)
        button(R.id.choose) { ask(choosing(), CHOSEN) }
        button(R.id.camera) { ask(taking(), TAKEN) }
        button(R.id.benchmark) { measure() }
        facts = Facts.of(this)
        describe()
        saved?.getString(ADDRESS)?.let { answer(Uri.parse(it)) }
    }

    override fun onSaveInstanceState(saved: Bundle) {
        super.onSaveInstanceState(saved)
        saved.putString(ADDRESS, address?.toString())
    }

    override fun onActivityResult(request: Int, result: Int, given: Intent?) {
        super.onActivityResult(request, result, given)
        if (result != RESULT_OK) return
        (if (request == TAKEN) handed(PHOTO) else given?.data)?.let { answer(it) }
    }

    private fun choosing(): Intent =
        if (Build.VERSION.SDK_INT >= 33) Intent(MediaStore.ACTION_PICK_IMAGES).setType(PICTURES)
        else Intent(Intent.ACTION_GET_CONTENT).setType(PICTURES).addCategory(Intent.CATEGORY_OPENABLE)

    private fun taking(): Intent =
        Intent(MediaStore.ACTION_IMAGE_CAPTURE).putExtra(MediaStore.EXTRA_OUTPUT, handed(PHOTO))

    private fun ask(intent: Intent, request: Int) = try {
        startActivityForResult(intent, request)
    } catch (_: ActivityNotFoundException) {
        text(R.id.verdict, getString(R.string.nobody))
    }

    /** The address of a file of ours for another app. */
    private fun handed(name: String): Uri =
        FileProvider.getUriForFile(this, "$packageName.files", File(cacheDir, "handed").apply { mkdirs() }.resolve(name))

    private fun describe() {
        val accuracy = facts.accuracy?.let {
            getString(R.string.accuracy, percent(it.share), percent(it.low), percent(it.high), it.pictures, it.split)
        } ?: getString(R.string.unmeasured)
        val bytes = NumberFormat.getIntegerInstance().format(facts.bytes)
        text(R.id.facts, getString(R.string.facts, facts.name, facts.dataset, facts.classes.size, bytes, accuracy))
    }

    private fun answer(uri: Uri) {
        address = uri
        work(R.string.looking) {
            val picture = Picture(contentResolver, uri)
            val square = picture.fitted(facts.size, facts.fit)
            val network = network()
            val probabilities = network.probabilities(square)
            val timing = Timing(listOf(network.milliseconds(square, SECONDS, FEWEST)))
            val shown = picture.shown()
            show { tell(shown, probabilities, timing) }
        }
    }

    private fun tell(shown: Bitmap, probabilities: DoubleArray, timing: Timing) {
        part<ImageView>(R.id.picture).apply {
            setImageBitmap(shown)
            visibility = View.VISIBLE
        }
        val ranked = probabilities.indices.sortedByDescending { probabilities[it] }.take(TOP)
        val rows = part<ViewGroup>(R.id.answers)
        rows.removeAllViews()
        for (index in ranked) {
            val row = layoutInflater.inflate(R.layout.answer, rows, false)
            val share = percent(probabilities[index])
            row.part<TextView>(R.id.name).text = facts.classes[index]
            row.part<TextView>(R.id.share).text = share
            row.part<ProgressBar>(R.id.bar).progress = (probabilities[index] * 1000).toInt()
            row.contentDescription = getString(R.string.answer, facts.classes[index], share)
            rows.addView(row)
        }
        text(R.id.verdict, facts.classes[ranked.first()])
        text(R.id.time, getString(R.string.milliseconds, "%.2f".format(Locale.ROOT, timing.median), timing.count))
    }

    private fun measure() = work(R.string.measuring) {
        val found = Benchmark(applicationContext, facts).measured()
        val uri = handed("${found.getString("device")}.json")
        contentResolver.openOutputStream(uri)?.use { it.write(found.toString(2).toByteArray()) }
        show {
            text(R.id.verdict, getString(R.string.first))
            val sending = Intent(Intent.ACTION_SEND)
                .setType("application/json")
                .putExtra(Intent.EXTRA_STREAM, uri)
                .addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
            sending.clipData = ClipData.newRawUri(null, uri)
            startActivity(Intent.createChooser(sending, getString(R.string.share)))
        }
    }

    /** Off the main thread, one after the other; what cannot be done is said in words. */
    private fun work(meanwhile: Int, task: () -> Unit) {
        text(R.id.verdict, getString(meanwhile))
        part<ViewGroup>(R.id.answers).removeAllViews()
        text(R.id.time, "")
        buttons(false)
        WORKER.execute {
            val trouble = try {
                task()
                null
            } catch (problem: Unreadable) {
                getString(problem.told, *problem.given)
            } catch (problem: IOException) { // no room for a measurement
                getString(R.string.stopped, problem.message)
            } catch (problem: OrtException) {
                getString(if (loaded == null) R.string.no_network else R.string.stopped, problem.message)
            }
            show {
                trouble?.let { text(R.id.verdict, it) }
                buttons(true)
            }
        }
    }

    private inline fun <reified Part : View> part(id: Int): Part = findViewById(id) as Part

    private fun show(change: () -> Unit) = runOnUiThread { if (!isDestroyed) change() }

    private fun network(): Classifier =
        loaded ?: Classifier(asset(this, "model.onnx"), facts.size, threads = 1).also { loaded = it }

    private fun button(id: Int, pressed: () -> Unit) = part<Button>(id).setOnClickListener { pressed() }

    private fun buttons(enabled: Boolean) {
        for (id in listOf(R.id.choose, R.id.camera, R.id.benchmark)) part<Button>(id).isEnabled = enabled
    }

    private fun text(id: Int, value: String) {
        part<TextView>(id).text = value
    }

    private fun percent(share: Double): String =
        NumberFormat.getPercentInstance().apply { maximumFractionDigits = 1 }.format(share)

    private companion object {
        const val PICTURES = "image/*"
        const val PHOTO = "photo.jpg"
        val WORKER = Executors.newSingleThreadExecutor()

        @Volatile
        var loaded: Classifier? = null // once for all screens of this process; written by WORKER alone
    }
}
